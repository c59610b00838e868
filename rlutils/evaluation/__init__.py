"""Evaluation: a policy to numbers."""
