"""Superposition in toy models, and what adversarial training does to it."""
