"""Polynomial equations and inequalities: simplified, solved, refuted, or met at a rational point."""
