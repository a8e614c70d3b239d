"""How well a few latents tell what an image, a token or a document is."""
