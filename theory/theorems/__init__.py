"""Theorems for full attention without encoding."""
