"""PyVision-RL: vision-language models that think by writing Python, and the RL that teaches them to."""

__version__ = "0.1.0"
