"""Asking an agent about one's own image or video: in the terminal, or as a page."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec
import yaml
from PIL.Image import Image
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from pyvision_rl.errors import ConfigError, InputError, PyVisionError
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rollout.agent import AgentConfig, open_agent
from pyvision_rl.rollout.episode import Agent, Opening, open_task, run_episode
from pyvision_rl.runs.config import resolve_model
from pyvision_rl.runs.folder import CONFIG
from pyvision_rl.types import Task, Trajectory, Turn
from pyvision_rl.viewer.detail import GivenImage
from pyvision_rl.viewer.looks import Looks, find_looks
from pyvision_rl.viewer.media import video_facts
from pyvision_rl.viewer.serve import check_port, serve_async
from pyvision_rl.viewer.turns import TurnView, store_turn, view_turn

MAX_BODY_BYTES = 100_000_000
MAX_IMAGES = 16


@dataclass(frozen=True)
class PlayConfig:
    """Ask an agent about an image or a video and watch its turns come in."""

    model: str
    """Checkpoint folder, run folder (its newest checkpoint), hub id, or tiny. Prompt, pixels and
    limits are those of the run that it comes from, where there is one."""
    question: str = ""
    """What to ask; not needed with `page`."""
    image: str = ""
    """Image file."""
    video: str = ""
    """Video file."""
    page: bool = False
    """Ask in a local web page instead."""
    port: int = 8766
    """The page's port; 0 takes a free one."""
    figures: str = ""
    """Folder to save the figures in that programs show."""
    seed: int = 0
    """Decides sampling."""
    policy: PolicyConfig = field(default_factory=lambda: PolicyConfig(model="tiny"))
    """How to load the model; which one is `model`."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Engine, sandbox, limits and sampling."""

    def __post_init__(self) -> None:
        check_port(self.port)
        if not self.page and not self.question:
            raise ConfigError("question: ask something, or use --page true")

    @property
    def task(self) -> Task:
        """The question as a task without a known answer."""
        images = (Path(self.image),) if self.image else ()
        videos = (Path(self.video),) if self.video else ()
        return Task("play", self.question, "", images, videos)


def run_defaults(model: str) -> list[str]:
    """Arguments for the prompt, pixels and limits of the run that a model comes from."""
    folders = [Path(model), *Path(model).absolute().parents[:2]]
    path = next((folder / CONFIG for folder in folders if (folder / CONFIG).is_file()), None)
    if path is None:
        return []
    tree = yaml.safe_load(path.read_text())
    parts = {key: tree[key] for key in ("policy", "agent") if key in tree}
    if isinstance(parts.get("policy"), dict):
        parts["policy"].pop("model", None)
    return [f"--{key}={value}" for key, value in _leaves("", parts)]


def _leaves(prefix: str, node: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)
    else:
        yield prefix, node


class Watcher(Protocol):
    """Is told about an episode as it goes on."""

    def on_opening(self, opening: Opening) -> None:
        """The prompt is ready."""
        ...

    def on_turn(self, place: int, turn: Turn) -> None:
        """A turn is complete."""
        ...

    def on_end(self, trajectory: Trajectory) -> None:
        """The episode has ended."""
        ...


async def play(config: PlayConfig, watcher: Watcher) -> Trajectory:
    """Ask once; the watcher sees every turn when it is complete. Raises InputError."""
    policy = load_policy(config)
    async with open_agent(policy, config.agent) as agent:
        opening = open_task(agent, config.task)
        watcher.on_opening(opening)
        seen: list[Turn] = []

        def on_turn(turn: Turn) -> None:
            watcher.on_turn(len(seen), turn)
            seen.append(turn)

        trajectory = await run_episode(agent, opening, config.seed, on_turn)
    watcher.on_end(trajectory)
    return trajectory


async def play_page(config: PlayConfig, say: Callable[[str], None]) -> None:
    """Serve the page until interrupted."""
    policy = load_policy(config)
    async with open_agent(policy, config.agent) as agent:
        await serve_async(play_routes(agent, config.model, config.seed), config.port, say)


def load_policy(config: PlayConfig) -> Policy:
    """The policy that `model` names. Raises InputError."""
    return Policy.load(replace(config.policy, model=resolve_model(config.model)))


class _Ask(msgspec.Struct):
    """A question of the page; images as data URLs."""

    question: str
    images: list[str] = []


@dataclass(frozen=True)
class _OpeningView:
    prompt: str
    num_prompt_tokens: int
    images: tuple[GivenImage, ...]
    videos: tuple[str, ...] = ()
    looks: Looks = Looks()  # noqa: RUF009 - frozen
    turns: tuple[TurnView, ...] = ()


def play_routes(agent: Agent, model: str, seed: int) -> list[BaseRoute]:
    """The routes of the page: one that answers a question as a stream of JSON lines."""

    async def hello(request: Request) -> Response:
        body = msgspec.json.encode({"mode": "play", "model": model})
        return Response(body, media_type="application/json")

    async def ask(request: Request) -> Response:
        # Only this type makes a browser ask before it sends a request of another page.
        if request.headers.get("content-type") != "application/json":
            return Response("content-type must be application/json", status_code=415)
        stream = _answer(agent, await _body(request), seed)
        return StreamingResponse(stream, media_type="application/x-ndjson")

    return [
        Route("/api/hello", hello),
        Route("/api/ask", ask, methods=["POST"]),
    ]


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise ClientDisconnect
    return bytes(body)


async def _answer(agent: Agent, body: bytes, seed: int) -> AsyncIterator[bytes]:
    """Lines: the opening, each turn, the end; or an error."""
    lines: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
    episode = asyncio.create_task(_run(agent, body, seed, lines.put_nowait))
    try:
        while (line := await lines.get()) is not None:
            yield msgspec.json.encode(line) + b"\n"
    finally:
        episode.cancel()


async def _run(
    agent: Agent, body: bytes, seed: int, tell: Callable[[dict[str, object] | None], None]
) -> None:
    try:
        asked = msgspec.json.decode(body, type=_Ask)
        with _image_files(asked.images) as paths:
            opening = open_task(agent, Task("play", asked.question, "", paths))
            teller = _Teller(opening, tell)
            teller.open()
            trajectory = await run_episode(agent, opening, seed, teller.turn)
        tell({"stop": trajectory.stop, "answer": trajectory.answer})
    except (PyVisionError, msgspec.DecodeError) as error:
        tell({"error": str(error)})
    finally:
        tell(None)


class _Teller:
    """Turns of an episode as messages to the page."""

    def __init__(self, opening: Opening, tell: Callable[[dict[str, object] | None], None]) -> None:
        self.opening = opening
        self.tell = tell
        self.codes: list[str | None] = []
        self.num_images = len(opening.images)

    def open(self) -> None:
        prompt = self.opening.prompt
        urls = _urls(prompt.images, "given")
        images = tuple(
            GivenImage(image.size, f"given-{k}" if k < len(prompt.images) else "", True, "")
            for k, image in enumerate(self.opening.images)
        )
        view = _OpeningView(prompt.text, len(prompt.token_ids), images)
        self.tell({"opening": view, "images": urls})

    def turn(self, turn: Turn) -> None:
        prefix = f"turn{len(self.codes)}"
        urls = _urls(turn.observation.images, prefix) if turn.observation else {}
        view = view_turn(store_turn(turn, tuple(urls)), self.num_images)
        self.codes.append(turn.code)
        self.num_images += len(urls)
        sizes = {k: image.size for k, image in enumerate(self.opening.images)}
        facts = {k: video_facts(str(path)) for k, path in enumerate(self.opening.task.videos)}
        looks = find_looks(self.codes, sizes, facts)
        self.tell({"turn": view, "looks": looks, "images": urls})


def _urls(images: Sequence[Image], prefix: str) -> dict[str, str]:
    """Images as data URLs by name."""
    urls = {}
    for place, image in enumerate(images):
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        encoded = base64.b64encode(file.getvalue()).decode()
        urls[f"{prefix}-{place}"] = f"data:image/png;base64,{encoded}"
    return urls


@contextmanager
def _image_files(urls: Sequence[str]) -> Iterator[tuple[Path, ...]]:
    """Uploaded images as files, for as long as they are needed. Raises InputError."""
    if len(urls) > MAX_IMAGES:
        raise InputError(f"{len(urls)} images; at most {MAX_IMAGES} are allowed")
    with tempfile.TemporaryDirectory(prefix="pyvision-play-") as folder:
        paths = []
        for place, url in enumerate(urls):
            path = Path(folder) / f"image {place + 1}"
            try:
                path.write_bytes(base64.b64decode(url.partition(",")[2], validate=True))
            except binascii.Error as error:
                raise InputError(f"image {place + 1}: not a data URL ({error})") from error
            paths.append(path)
        yield tuple(paths)
