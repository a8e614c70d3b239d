"""Dictionaries of networks trained plainly and adversarially: which have more superposition?"""
