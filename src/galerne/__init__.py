"""Galerne: the AI infrastructure that an organisation owns."""

__version__ = "0.1.0"
