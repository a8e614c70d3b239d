"""Subjects with weights written by rule, whose features are known."""
