"""Crosscoder parts."""
