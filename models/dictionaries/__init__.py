"""Sparse dictionaries, trained on stored activations."""
