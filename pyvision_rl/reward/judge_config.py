"""Which model judges answers, when it is asked, and what that costs. Knows no HTTP."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pyvision_rl.errors import ConfigError
from pyvision_rl.reward.declared import declared_rule
from pyvision_rl.reward.options import parse_options
from pyvision_rl.reward.rules import MAX_ANSWER_CHARS, route
from pyvision_rl.reward.text import plain
from pyvision_rl.types import Task

MAY_CHANGE = tuple(
    f"judge.{name}"
    for name in (
        "url",
        "api_key_env",
        "max_in_flight",
        "timeout_s",
        "max_retries",
        "backoff_s",
        "max_requests",
        "usd_per_million_input",
        "usd_per_million_output",
    )
)
"""What a resumed run may have otherwise: nothing of it changes a verdict."""
CLOSED_TEXTS = frozenset({"yes", "no", "true", "false"})


@dataclass(frozen=True)
class JudgeConfig:
    """Which model judges, and how much it may be asked."""

    model: str = ""
    """Name of the model at the server; empty: nothing is judged, the rules alone decide."""
    url: str = "http://127.0.0.1:8000/v1"
    """The server's address up to and with `/v1`."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; it may lack for a server of one's own."""
    prompt: str = ""
    """Text file with {question}, {gold} and {answer}; empty: the one in the package."""
    cache: str = ""
    """Folder of verdicts, which runs and processes may share; empty: the run's own."""
    max_in_flight: int = 32
    """Requests at the same time."""
    timeout_s: float = 60.0
    """Seconds that one request may take."""
    max_retries: int = 5
    """Further attempts after a failure that may pass: no connection, time-out, 429, 5xx."""
    backoff_s: float = 1.0
    """Seconds before the first further attempt; doubled for each after it, at most 60."""
    max_requests: int = 0
    """Budget of one start of the run: the request after this many ends it; 0: no limit."""
    usd_per_million_input: float = 0.0
    """Price of input tokens, for the count of costs."""
    usd_per_million_output: float = 0.0
    """Price of output tokens, for the count of costs."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"judge: url = {self.url!r}; must start with http(s)://")
        if self.max_in_flight < 1 or self.timeout_s <= 0:
            raise ConfigError("judge: max_in_flight and timeout_s must be positive")
        if self.max_retries < 0 or self.backoff_s < 0 or self.max_requests < 0:
            raise ConfigError("judge: max_retries, backoff_s and max_requests must not be negative")


@dataclass
class JudgeStats:
    """What a judge has done: answers that it was given, of them those whose verdict was known,
    requests sent, tokens as the server counts them.
    """

    num_asked: int = 0
    num_cached: int = 0
    num_requests: int = 0
    num_input_tokens: int = 0
    num_output_tokens: int = 0

    def usd(self, config: JudgeConfig) -> float:
        """Cost at the prices of the configuration."""
        paid_in = self.num_input_tokens * config.usd_per_million_input
        return (paid_in + self.num_output_tokens * config.usd_per_million_output) / 1e6

    def metrics(self, config: JudgeConfig) -> dict[str, float]:
        """The numbers as metrics of a run, `judge/asked` and so on."""
        counts = {key.removeprefix("num_"): float(num) for key, num in asdict(self).items()}
        return {f"judge/{key}": num for key, num in counts.items()} | {
            "judge/usd": self.usd(config)
        }


def needs_judge(task: Task, answer: str, default: str = "auto") -> bool:
    """Whether the judge decides on an answer that the rules found wrong: where the task's rule is
    "judge", and where it is free text, which may be right in other words.
    """
    if not plain(answer) or len(answer) >= MAX_ANSWER_CHARS:
        return False
    rule = declared_rule(task, default)
    if rule != "auto":
        return rule == "judge"
    routed = route(task.answer, parse_options(task.question), task.source)
    return routed == "text" and plain(task.answer) not in CLOSED_TEXTS
