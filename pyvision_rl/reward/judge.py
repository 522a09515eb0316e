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

import httpx

from pyvision_rl.closing import Closing
from pyvision_rl.errors import ConfigError, PyVisionError
from pyvision_rl.reward.declared import declared_rule, grade_task
from pyvision_rl.reward.judge_config import JudgeConfig, JudgeStats, needs_judge
from pyvision_rl.reward.rules import grade_answer
from pyvision_rl.types import Task

LONG_DASHES = re.compile(r"-{4,}")
PLACEHOLDERS = ("question", "gold", "answer")
VERDICT = re.compile(
    r"(?:(?:final )?(?:verdict|judge?ment|score|result|output)(?: is)?)?"
    r"[\s*_`:=\"'(\[]*([01])[\s*_`\"').\]]*",
    re.IGNORECASE,
)
"""The last line of a reply; elsewhere a 0 or 1 may be of the answer that is judged."""
VERDICTS_FILE = "judge.sqlite"
SHOWN_CHARS = 200
MAX_BACKOFF_S = 60.0
RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass
class Judge(Closing):
    """A `Grader`: rules first, the model where they do not decide. Use it as `async with`.

    Equal questions are asked once, also by the runs and processes that share a cache folder (""
    keeps verdicts in memory). Temperature is 0. Raises ConfigError for a configuration that cannot
    be used.
    """

    config: JudgeConfig
    rule: str = "auto"
    stats: JudgeStats = field(default_factory=JudgeStats)

    def __post_init__(self) -> None:
        if not self.config.model:
            raise ConfigError("judge: model is empty; name the model of the server")
        self._url = _endpoint(self.config.url)
        self._told: dict[str, float] = {}
        self._template = _read_template(self.config.prompt)
        self._pending: dict[str, asyncio.Task[float]] = {}
        self._slots = asyncio.Semaphore(self.config.max_in_flight)
        self._cache = VerdictCache(self.config.cache)
        key = os.environ.get(self.config.api_key_env, "")
        self._client = httpx.AsyncClient(
            timeout=self.config.timeout_s,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            # Loading the certificates takes a while, and plain http has no use for them.
            verify=self.config.url.startswith("https:"),
            limits=httpx.Limits(max_connections=self.config.max_in_flight),
        )

    async def close(self) -> None:
        """Ask no more, and close the connections and the verdicts that are kept."""
        pending = list(self._pending.values())
        for asked in pending:
            asked.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
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
        # The answer stands between two lines of dashes and must not draw one itself.
        quoted = LONG_DASHES.sub("---", answer)
        values = {"question": task.question, "gold": task.answer, "answer": quoted}
        # A text that was cut may hold half of a character, which no request can.
        prompt = fill(self._template, values).encode("utf-8", "replace").decode()
        key = hashlib.sha256(f"{self.config.model}\0{prompt}".encode()).hexdigest()
        self.stats.num_asked += 1
        known = self._cache.get(key)
        if known is not None:
            self.stats.num_cached += 1
            return known
        if key in self._pending:
            self.stats.num_cached += 1
        else:
            asked = asyncio.create_task(self._ask(prompt, key))
            asked.add_done_callback(lambda ended: self._end(key, ended))
            self._pending[key] = asked
        # One of several that wait for this verdict may be cancelled; the others go on.
        return await asyncio.shield(self._pending[key])

    def _end(self, key: str, asked: asyncio.Task[float]) -> None:
        self._pending.pop(key, None)
        if not asked.cancelled():
            # Those who waited may be gone, and an error that nobody fetches would be printed.
            asked.exception()

    def take_metrics(self) -> dict[str, float]:
        """What was judged since the last call and what it cost, as `judge/...`."""
        told, self._told = self._told, self.stats.metrics(self.config)
        return {key: total - told.get(key, 0.0) for key, total in self._told.items()}

    async def _ask(self, prompt: str, key: str) -> float:
        async with self._slots:
            verdict = await self._request(prompt)
        self._cache.put(key, self.config.model, verdict)
        return verdict

    async def _request(self, prompt: str) -> float:
        """The server's verdict, after as many attempts as are allowed."""
        failure = ""
        for attempt in range(self.config.max_retries + 1):
            wait_s = min(MAX_BACKOFF_S, self.config.backoff_s * 2**attempt)
            try:
                # A reply that was no verdict would come again from the same seed.
                response = await self._send(prompt, seed=attempt)
            except httpx.RequestError as error:
                failure = f"{type(error).__name__} {error}".strip()
            else:
                if response.is_success:
                    reply = _json_object(response)
                    self._count(reply)
                    verdict, failure = _verdict(reply)
                    if verdict is not None:
                        return verdict
                else:
                    failure = self._refusal(response)
                    wait_s = max(wait_s, _retry_after_s(response))
            if attempt < self.config.max_retries:
                # Requests that failed together must not all come back together.
                await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))
        attempts = self.config.max_retries + 1
        raise PyVisionError(f"judge at {self._url}: gave up after {attempts} attempts: {failure}")

    async def _send(self, prompt: str, seed: int) -> httpx.Response:
        self._spend()
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "seed": seed,
        }
        return await self._client.post(self._url, json=body)

    def _refusal(self, response: httpx.Response) -> str:
        """What the server said; raises where asking again is of no use."""
        said = " ".join(response.text.split())[:SHOWN_CHARS]
        failure = f"status {response.status_code} {said}"
        if response.status_code not in RETRIED_STATUS:
            raise PyVisionError(f"judge at {self._url}: {failure}")
        return failure

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
    """Verdicts by the hash of model and prompt, in memory or in a SQLite file of a folder.

    `get` and `put` raise PyVisionError where the file fails, a full disk among the reasons.
    """

    def __init__(self, folder: str) -> None:
        self._path = path = str(Path(folder) / VERDICTS_FILE) if folder else ":memory:"
        try:
            if folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._store.execute(
                "CREATE TABLE IF NOT EXISTS verdicts "
                "(key TEXT PRIMARY KEY, model TEXT NOT NULL, verdict REAL NOT NULL)"
            )
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"judge: cache {path} cannot be opened ({error})") from error

    def get(self, key: str) -> float | None:
        """The verdict, None where it was never given."""
        rows = self._execute("SELECT verdict FROM verdicts WHERE key = ?", (key,))
        return float(rows[0][0]) if rows else None

    def put(self, key: str, model: str, verdict: float) -> None:
        """Keep a verdict."""
        self._execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", (key, model, verdict))

    def _execute(self, statement: str, values: tuple[str | float, ...]) -> list[tuple[float]]:
        try:
            return self._store.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise PyVisionError(f"judge: cache {self._path}: {error}") from error

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


def _endpoint(url: str) -> str:
    """Where a server at `url` takes chats. Raises ConfigError for what is no address."""
    try:
        return str(httpx.URL(url.rstrip("/") + "/chat/completions"))
    except httpx.InvalidURL as error:
        raise ConfigError(f"judge: url = {url!r}; {error}") from error


def _json_object(response: httpx.Response) -> Mapping[str, object]:
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
        value = response.json()
        if isinstance(value, Mapping):
            return value
    said = " ".join(response.text.split())[:SHOWN_CHARS]
    raise PyVisionError(f"judge at {response.url}: reply is no json object: {said}")


def _verdict(reply: Mapping[str, object]) -> tuple[float | None, str]:
    """1.0 or 0.0 of a reply's last line; None, and why, where that is something else."""
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    said = content.rpartition("</think>")[2] if isinstance(content, str) else ""
    # Of a reply that was cut off, or is still thinking, the last line is any line.
    is_whole = not isinstance(first, Mapping) or first.get("finish_reason") != "length"
    lines = said.split("\n") if is_whole and "<think>" not in said else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    if match := VERDICT.fullmatch(last.strip().strip("*_`")):
        return float(match[1]), ""
    cut = "" if is_whole else ", cut off"
    return None, f"reply {str(content)[:SHOWN_CHARS]!r}{cut}; must be 1 or 0"


def _retry_after_s(response: httpx.Response) -> float:
    seconds = response.headers.get("retry-after", "")
    return min(MAX_BACKOFF_S, float(seconds)) if seconds.isdecimal() else 0.0


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
