"""Steer."""
