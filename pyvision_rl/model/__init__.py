"""Tokens and weights: the chat codec, the policy, and the engines that sample from it."""
