"""Sources of inputs: images, text and tokens."""
