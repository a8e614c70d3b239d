"""Benchmarks: each measures something and its yardstick in the same process."""
