"""Data: files to Episodes."""
