"""A pool behind HTTP, for machines with cores to spare, and its client."""
