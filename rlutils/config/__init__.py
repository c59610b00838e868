"""Configuration: YAML files, overrides and checked settings."""
