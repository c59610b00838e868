"""Data sources: each turns some kind of recorded data into Episodes."""
