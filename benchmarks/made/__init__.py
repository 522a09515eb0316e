"""What several benchmarks measure on: models, rows and peers made here, from a seed."""
