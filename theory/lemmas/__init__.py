"""Lemmas L1–L6, for every n and d."""
