"""New plugins to start from."""
