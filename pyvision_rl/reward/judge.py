"""A language model as the judge of answers that no rule decides, behind any OpenAI-compatible
server. It fails loudly: an answer that could not be judged is never scored as wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from pyvision_rl.errors import ConfigError, PyVisionError
from pyvision_rl.reward.declared import declared_rule, grade_task
from pyvision_rl.reward.rules import MAX_ANSWER_CHARS, grade_answer, route
from pyvision_rl.reward.text import parse_options, plain
from pyvision_rl.types import Task

PLACEHOLDERS = ("question", "gold", "answer")
CLOSED_TEXTS = frozenset({"yes", "no", "true", "false"})
VERDICT = re.compile(r"\W*([01])\W*")
MAX_BACKOFF_S = 60.0
RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class JudgeConfig:
    """Which model judges, and how much it may be asked."""

    model: str
    """Name of the model at the server."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """The server's address up to and with `/v1`."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; it may lack for a server of one's own."""
    prompt: str = ""
    """Text file with {question}, {gold} and {answer}; empty: the one in the package."""
    cache: str = ""
    """SQLite file of verdicts, shared by runs and processes; empty: memory only."""
    max_in_flight: int = 32
    """Requests at the same time."""
    timeout_s: float = 60.0
    """Seconds that one request may take."""
    max_retries: int = 5
    """Further attempts after a failure that may pass: no connection, time-out, 429, 5xx."""
    backoff_s: float = 1.0
    """Seconds before the first further attempt; doubled for each after it, at most 60."""
    max_requests: int = 0
    """Budget: raise an error at the request after this many; 0: no limit."""
    usd_per_million_input: float = 0.0
    """Price of input tokens, for the count of costs."""
    usd_per_million_output: float = 0.0
    """Price of output tokens, for the count of costs."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("judge: model is empty; name the model of the server")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"judge: base_url = {self.base_url!r}; must start with http(s)://")
        if self.max_in_flight < 1 or self.timeout_s <= 0:
            raise ConfigError("judge: max_in_flight and timeout_s must be positive")
        if self.max_retries < 0 or self.backoff_s < 0 or self.max_requests < 0:
            raise ConfigError("judge: max_retries, backoff_s and max_requests must not be negative")


@dataclass
class JudgeStats:
    """What the judge has done so far."""

    num_asked: int = 0
    num_cached: int = 0
    num_requests: int = 0
    num_input_tokens: int = 0
    num_output_tokens: int = 0

    def usd(self, config: JudgeConfig) -> float:
        """Cost so far at the prices of the configuration."""
        paid_in = self.num_input_tokens * config.usd_per_million_input
        return (paid_in + self.num_output_tokens * config.usd_per_million_output) / 1e6


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


@dataclass
class Judge:
    """A `Grader`: rules first, the model where they do not decide. Use it as `async with`.

    Equal questions are asked once, across runs with a `cache`. Temperature is 0.
    """

    config: JudgeConfig
    rule: str = "auto"
    stats: JudgeStats = field(default_factory=JudgeStats)

    def __post_init__(self) -> None:
        self._template = _read_template(self.config.prompt)
        self._pending: dict[str, asyncio.Task[float]] = {}
        self._slots = asyncio.Semaphore(self.config.max_in_flight)
        self._cache = VerdictCache(self.config.cache)
        key = os.environ.get(self.config.api_key_env, "")
        self._client = httpx.AsyncClient(
            timeout=self.config.timeout_s,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            # Loading the certificates takes a while, and plain http has no use for them.
            verify=self.config.base_url.startswith("https:"),
            limits=httpx.Limits(max_connections=self.config.max_in_flight),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for asked in list(self._pending.values()):
            asked.cancel()
        await self._client.aclose()
        self._cache.close()

    async def grade(self, task: Task, answer: str) -> float:
        """Accuracy of an answer. Raises PyVisionError where the judge gives no verdict."""
        rule = declared_rule(task, self.rule)
        if rule == "judge":
            accuracy = grade_answer(answer, task.answer, "text")
        else:
            accuracy = await asyncio.to_thread(grade_task, task, answer, self.rule)
        if accuracy or not needs_judge(task, answer, self.rule):
            return accuracy
        values = {"question": task.question, "gold": task.answer, "answer": answer}
        prompt = fill(self._template, values)
        key = hashlib.sha256(
            f"{self.config.model}\0{prompt}".encode("utf-8", "replace")
        ).hexdigest()
        self.stats.num_asked += 1
        known = self._cache.get(key)
        if known is not None:
            self.stats.num_cached += 1
            return known
        if key in self._pending:
            self.stats.num_cached += 1
        else:
            asked = asyncio.create_task(self._ask(prompt, key))
            asked.add_done_callback(lambda _: self._pending.pop(key, None))
            self._pending[key] = asked
        # One of several that wait for this verdict may be cancelled; the others go on.
        return await asyncio.shield(self._pending[key])

    async def _ask(self, prompt: str, key: str) -> float:
        async with self._slots:
            reply = await self._request(prompt)
        self._count(reply)
        verdict = _verdict(reply)
        self._cache.put(key, self.config.model, verdict)
        return verdict

    async def _request(self, prompt: str) -> Mapping[str, object]:
        """The server's reply, after as many attempts as are allowed."""
        url = self.config.base_url.rstrip("/") + "/chat/completions"
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "seed": 0,
        }
        attempt = 0
        while True:
            self._spend()
            wait_s = min(MAX_BACKOFF_S, self.config.backoff_s * 2**attempt)
            try:
                response = await self._client.post(url, json=body)
            except httpx.TransportError as error:
                failure = f"{type(error).__name__} {error}".strip()
            else:
                if response.is_success:
                    return _json_object(response)
                failure = f"status {response.status_code} {response.text[:200]}"
                if response.status_code not in RETRIED_STATUS:
                    raise PyVisionError(f"judge at {url}: {failure}")
                wait_s = max(wait_s, _retry_after_s(response))
            attempt += 1
            if attempt > self.config.max_retries:
                raise PyVisionError(f"judge at {url}: gave up after {attempt} attempts: {failure}")
            # Requests that failed together must not all come back together.
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))

    def _spend(self) -> None:
        if 0 < self.config.max_requests <= self.stats.num_requests:
            raise PyVisionError(
                f"judge: the budget of {self.config.max_requests} requests is spent; "
                "raise judge.max_requests to go on"
            )
        self.stats.num_requests += 1

    def _count(self, reply: Mapping[str, object]) -> None:
        usage = reply.get("usage")
        if isinstance(usage, Mapping):
            self.stats.num_input_tokens += _whole(usage.get("prompt_tokens"))
            self.stats.num_output_tokens += _whole(usage.get("completion_tokens"))


class VerdictCache:
    """Verdicts by the hash of model and prompt, in memory and in a SQLite file."""

    def __init__(self, path: str) -> None:
        try:
            if path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(path or ":memory:", timeout=30, isolation_level=None)
            self._store.execute(
                "CREATE TABLE IF NOT EXISTS verdicts "
                "(key TEXT PRIMARY KEY, model TEXT NOT NULL, verdict REAL NOT NULL)"
            )
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"judge: cache {path} cannot be opened ({error})") from error

    def get(self, key: str) -> float | None:
        """The verdict, None where it was never given."""
        rows = self._store.execute("SELECT verdict FROM verdicts WHERE key = ?", (key,)).fetchall()
        return float(rows[0][0]) if rows else None

    def put(self, key: str, model: str, verdict: float) -> None:
        """Keep a verdict."""
        self._store.execute(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", (key, model, verdict)
        )

    def close(self) -> None:
        """Close the file."""
        self._store.close()


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its placeholders replaced, in one pass: values may hold braces."""
    return re.sub(r"\{(\w+)\}", lambda mark: values.get(mark[1], mark[0]), template)


def _read_template(path: str) -> str:
    try:
        file = Path(path) if path else resources.files("pyvision_rl.reward") / "prompts/judge.txt"
        template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"judge: prompt {path} cannot be read ({error})") from error
    missing = [name for name in PLACEHOLDERS if f"{{{name}}}" not in template]
    if missing:
        raise ConfigError(f"judge: prompt {path} lacks the placeholder {{{missing[0]}}}")
    return template


def _json_object(response: httpx.Response) -> Mapping[str, object]:
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
        value = response.json()
        if isinstance(value, Mapping):
            return value
    raise PyVisionError(f"judge at {response.url}: reply is no json object: {response.text[:200]}")


def _verdict(reply: Mapping[str, object]) -> float:
    """1.0 or 0.0. Raises PyVisionError for any other reply: it is not taken for a wrong answer."""
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    text = content.rpartition("</think>")[2] if isinstance(content, str) else ""
    match = VERDICT.fullmatch(text)
    if match is None:
        raise PyVisionError(f"judge: reply {str(content)[:200]!r}; must be 1 or 0")
    return float(match[1])


def _retry_after_s(response: httpx.Response) -> float:
    seconds = response.headers.get("retry-after", "")
    return min(MAX_BACKOFF_S, float(seconds)) if seconds.isdecimal() else 0.0


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
