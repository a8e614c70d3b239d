"""Faults that are put in: flipped bits, malformed inputs, kills, hostile stores and runs."""

from .table import measure as measure
