"""The agent as a chat server: the tool loop inside, OpenAI's interface outside."""
