"""Before a run: what this machine has, and whether a configuration fits it."""
