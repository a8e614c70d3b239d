"""Sites of a network: reading, replacing and locating its activations."""
