"""Cold start: supervised fine-tuning on traces, with the codec and the loss mask of RL."""
