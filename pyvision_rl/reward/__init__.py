"""From a trajectory to its reward: rules for answers, the tool part, and a place for a judge."""
