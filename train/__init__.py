"""Store -> dictionary."""
