"""Pretraining of the tiny base: `python -m scripts.tiny_base`."""
