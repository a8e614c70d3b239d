"""Stores, runs and reports of a home: list, describe and remove them."""
