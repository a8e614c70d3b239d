"""The study `attack`: accuracy against the strength of an attack, with checks of the attack."""
