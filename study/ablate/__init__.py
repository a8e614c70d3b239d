"""Ablate."""
