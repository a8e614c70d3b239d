"""Subjects: the networks under study, and how to load them."""
