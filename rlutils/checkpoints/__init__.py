"""Checkpoints: an algorithm to a folder and back."""
