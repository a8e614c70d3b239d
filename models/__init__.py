"""Neural networks: the subjects under study, and the dictionaries trained on their activations."""
