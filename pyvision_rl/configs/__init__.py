"""Shipped configurations: sparse YAML files, each with a word on what it is for."""
