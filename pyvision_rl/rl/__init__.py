"""Groups -> better weights: selection, advantage, loss, the learner and the training loop."""
