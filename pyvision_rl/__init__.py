"""PyVision-RL: train vision-language models that think by writing Python."""

__version__ = "0.1.0"
