"""Configuration: YAML files, overrides and checked settings."""

BUILTINS: list[str] = []
"""Modules that register what this package offers. The package's face names them: this room knows none above it."""
