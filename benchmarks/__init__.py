"""Measurements quoted in the documentation; each module prints its table."""
