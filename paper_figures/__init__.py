"""Figures of the theory, one file each."""
