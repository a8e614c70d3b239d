"""Stores on disk, the order of reading, sources of inputs, and the group of image symmetries."""
