"""Tests of the networks and dictionaries."""
