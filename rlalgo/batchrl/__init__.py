"""The algorithms: one file (or one folder) each, registered through the same hooks as any plugin."""
