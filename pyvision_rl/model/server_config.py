"""Which model server is used, and how. Knows no HTTP, so that it can always be imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.images import PixelLimits


@dataclass(frozen=True)
class ServerConfig:
    """A model behind a server, for rollouts and evaluation."""

    url: str = ""
    """Address up to and with `/v1`, such as http://127.0.0.1:8000/v1."""
    model: str = ""
    """Name of the model at the server; empty: the first one it lists."""
    api: Literal["chat", "vllm"] = "chat"
    """chat: messages to any OpenAI-compatible server, log-probs unknown. vllm: token ids to a vLLM
    started with --enable-scale-out --logprobs-mode processed_logprobs, with log-probs where neither
    top_k nor top_p cuts the distribution."""
    tokenizer: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """Folder or hub id of the tokenizer that counts (chat) or makes (vllm) tokens, a Qwen2.5-VL's;
    for vllm with the served model's config.json."""
    pixels: PixelLimits = field(default_factory=PixelLimits)
    """Pixels that an image may have in the context; a vLLM asked by token ids must have the same
    (--mm-processor-kwargs), or wider ones."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; it may lack for a server of one's own."""
    max_in_flight: int = 32
    """Requests at the same time; further ones wait."""
    timeout_s: float = 600.0
    """Seconds that one request may take."""
    max_retries: int = 5
    """Further attempts after a failure that may pass: no connection, time-out, 429, 5xx."""
    backoff_s: float = 1.0
    """Seconds before the first further attempt; doubled for each after it, at most 60."""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"server: url = {self.url!r}; must start with http(s)://")
        if self.max_in_flight < 1 or self.timeout_s <= 0:
            raise ConfigError("server: max_in_flight and timeout_s must be positive")
        if self.max_retries < 0 or self.backoff_s < 0:
            raise ConfigError("server: max_retries and backoff_s must not be negative")
