"""Evaluators: numbers about an algorithm from data alone, for those who have no environment to play in."""
