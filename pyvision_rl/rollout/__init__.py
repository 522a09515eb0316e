"""Task x engine x sandbox -> trajectory: prompts, parsing, the episode, groups of episodes."""
