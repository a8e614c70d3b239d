"""How dictionaries scale when features are manifolds."""
