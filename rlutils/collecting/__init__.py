"""Collecting: a behavior plays and becomes a dataset."""
