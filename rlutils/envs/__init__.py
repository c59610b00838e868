"""Environments that give what the data holds."""
