"""Tokendyn: pairs each theorem with its simulation and its probe."""
