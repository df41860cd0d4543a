"""Exact half: statements, derivations and certified verdicts (SymPy and Arb)."""
