"""Missing curves."""
