"""Published benchmarks: their files as items, their exact metrics, and where scorers differ."""
