"""Tendril: harvest activations once, train sparse dictionaries on them, study their features."""
