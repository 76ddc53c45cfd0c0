"""Measurements of this project on this machine: `python -m bench [name]`, or `make bench B=name`."""
