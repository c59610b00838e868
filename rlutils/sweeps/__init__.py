"""Sweeps: a grid of runs as processes."""
