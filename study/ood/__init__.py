"""Inputs unlike those of training, told by the latents that are active."""
