"""Dihedral groups and their action on images."""
