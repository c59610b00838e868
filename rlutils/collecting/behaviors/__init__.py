"""Behaviors: policies that act to record data. Each yields whole recorded episodes."""
