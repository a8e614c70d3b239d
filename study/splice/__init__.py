"""Splice."""
