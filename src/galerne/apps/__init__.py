"""Composition roots: the only place that knows everything. Nothing may import it."""
