"""Behaviors: which policy acts in each recorded episode, and what to note of it."""
