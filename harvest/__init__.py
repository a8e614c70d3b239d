"""Subject + inputs -> store."""
