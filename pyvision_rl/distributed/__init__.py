"""The same run on many GPUs: verl's workers and samplers under our loop, episode and loss."""
