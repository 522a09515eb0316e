"""Ablations: the RL stage again and again with one thing changed, over seeds, in one table."""
