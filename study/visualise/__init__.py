"""Visualise."""
