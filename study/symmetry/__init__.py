"""Symmetries of the latents of a group crosscoder."""
