"""Latents of dictionaries of successive layers, matched (SAE Match)."""
