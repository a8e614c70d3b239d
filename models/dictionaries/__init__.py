"""The networks trained on stored activations."""
