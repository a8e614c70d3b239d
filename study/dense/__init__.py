"""Latents that are active on a large part of the vectors."""
