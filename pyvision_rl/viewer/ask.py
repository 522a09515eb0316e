"""The page on which an agent is asked: files come in, turns go out as they are complete."""

from __future__ import annotations

import asyncio
import base64
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from PIL.Image import Image
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from pyvision_rl.data.media import load_image
from pyvision_rl.errors import InputError, PyVisionError
from pyvision_rl.rollout.episode import Agent, Opening, open_task, run_episode
from pyvision_rl.rollout.videos import read_info
from pyvision_rl.sandbox.config import FigureStyle
from pyvision_rl.types import Task, Turn
from pyvision_rl.viewer.detail import GivenFrame, GivenImage, GivenVideo
from pyvision_rl.viewer.looks import Looks, VideoFacts, find_looks
from pyvision_rl.viewer.pictures import Figures
from pyvision_rl.viewer.turns import TurnView, store_turn, view_turn

MAX_FILE_BYTES = 4_000_000_000
MAX_FILES = 16
_MAX_ASK_BYTES = 1_000_000
_CLIENT_LEFT = 499

Message = dict[str, object]
Tell = Callable[[Message | None], None]
"""Sends a message to the page; None is the end."""


class _Ask(msgspec.Struct):
    """A question of the page, about files that it sent before."""

    question: str
    files: list[int] = []


@dataclass(frozen=True)
class _File:
    path: Path
    kind: Literal["image", "video"]


@dataclass(frozen=True)
class _OpeningView:
    prompt: str
    num_prompt_tokens: int
    images: tuple[GivenImage, ...]
    videos: tuple[GivenVideo, ...]
    frames: tuple[GivenFrame, ...] = ()
    looks: Looks = Looks()  # noqa: RUF009 - frozen
    not_kept: tuple[str, ...] = ()
    turns: tuple[TurnView, ...] = ()


class AskPage:
    """The routes of the page, and the files it sent: the last 16, gone with the page."""

    def __init__(self, agent: Agent, model: str, seed: int, figures: FigureStyle) -> None:
        self._agent = agent
        self._model = model
        self._seed = seed
        self._exact = figures == "pixels"
        self._folder = tempfile.TemporaryDirectory(prefix="pyvision-play-")
        self._files: dict[int, _File] = {}
        self._num_files = 0

    def routes(self) -> list[BaseRoute]:
        """One address that takes a file, one that answers a question as a stream of JSON lines."""
        return [
            Route("/api/hello", self._hello),
            Route("/api/file", self._take_file, methods=["POST"]),
            Route("/api/ask", self._ask, methods=["POST"]),
        ]

    async def _hello(self, request: Request) -> Response:
        return _json({"mode": "play", "model": self._model})

    async def _take_file(self, request: Request) -> Response:
        """Store an image or a video; answers its number and kind."""
        # Only types like these make a browser ask before it sends a request of another page.
        if request.headers.get("content-type") != "application/octet-stream":
            return Response("content-type must be application/octet-stream", status_code=415)
        number = self._num_files = self._num_files + 1
        path = Path(self._folder.name) / f"file {number}"
        name = request.query_params.get("name", "the file")
        try:
            await _store(request, path, name)
            kind = await asyncio.to_thread(_kind_of, path, name)
            self._files[number] = _File(path, kind)
        except InputError as error:
            return _json({"error": str(error)}, 422)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        finally:
            if number not in self._files:
                path.unlink(missing_ok=True)
        while len(self._files) > MAX_FILES:
            self._files.pop(min(self._files)).path.unlink(missing_ok=True)
        return _json({"file": number, "kind": kind})

    async def _ask(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return Response("content-type must be application/json", status_code=415)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _MAX_ASK_BYTES:
                return Response("the question is too long", status_code=413)
        return StreamingResponse(self._answer(bytes(body)), media_type="application/x-ndjson")

    async def _answer(self, body: bytes) -> AsyncIterator[bytes]:
        """Lines: the opening, each turn, the end; or an error."""
        lines: asyncio.Queue[Message | None] = asyncio.Queue()
        episode = asyncio.create_task(self._run(body, lines.put_nowait))
        try:
            while (line := await lines.get()) is not None:
                yield msgspec.json.encode(line) + b"\n"
        finally:
            episode.cancel()

    async def _run(self, body: bytes, tell: Tell) -> None:
        try:
            task = self._task(msgspec.json.decode(body, type=_Ask))
            opening = await asyncio.to_thread(open_task, self._agent, task)
            teller = _Teller(opening, tell, exact=self._exact)
            teller.open()
            trajectory = await run_episode(self._agent, opening, self._seed, teller.turn)
            tell({"stop": trajectory.stop, "answer": trajectory.answer})
        except (PyVisionError, msgspec.DecodeError) as error:
            tell({"error": str(error)})
        finally:
            tell(None)

    def _task(self, asked: _Ask) -> Task:
        if gone := [number for number in asked.files if number not in self._files]:
            raise InputError(f"file {gone[0]} is not here any more; choose it again")
        files = [self._files[number] for number in asked.files]
        images, videos = (
            tuple(file.path for file in files if file.kind == kind) for kind in ("image", "video")
        )
        return Task("play", asked.question, "", images, videos)


async def _store(request: Request, path: Path, name: str) -> None:
    """Write a request's body to a file. Raises InputError where it is too large or does not fit."""
    num_bytes = 0
    try:
        with path.open("wb") as file:
            async for part in request.stream():
                num_bytes += len(part)
                if num_bytes > MAX_FILE_BYTES:
                    raise InputError(f"{name}: larger than {MAX_FILE_BYTES:,} bytes")
                file.write(part)
    except OSError as error:
        raise InputError(f"{name}: cannot be stored: {error.strerror}") from error


def _kind_of(path: Path, name: str) -> Literal["image", "video"]:
    """By content. Raises InputError for a file that is neither."""
    try:
        load_image(path)
    except InputError as no_image:
        try:
            read_info(path)
        except InputError as no_video:
            reasons = [str(reason).removeprefix(f"{path}: ") for reason in (no_image, no_video)]
            raise InputError(f"{name}: {'; '.join(reasons)}") from no_video
        return "video"
    return "image"


def _json(body: Message, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


class _Teller:
    """Turns of an episode as messages to the page."""

    def __init__(self, opening: Opening, tell: Tell, *, exact: bool) -> None:
        self.opening = opening
        self.tell = tell
        self.exact = exact
        self.codes: list[str | None] = []
        self.figures: dict[int, Figures] = {}
        self.num_images = len(opening.images)
        videos = [read_info(path) for path in opening.task.videos]
        self.videos = {k: VideoFacts(video.num_frames, video.fps) for k, video in enumerate(videos)}

    def open(self) -> None:
        """Tell what was asked about."""
        prompt = self.opening.prompt
        images = tuple(
            GivenImage(image.size, f"given-{k}" if k < len(prompt.images) else "", True, "")
            for k, image in enumerate(self.opening.images)
        )
        videos = tuple(
            GivenVideo("", facts.num_frames, facts.fps) for facts in self.videos.values()
        )
        view = _OpeningView(prompt.text, len(prompt.token_ids), images, videos)
        self.tell({"opening": view, "images": _urls(prompt.images, "given")})

    def turn(self, turn: Turn) -> None:
        """Tell a turn, and what all programs so far have looked at."""
        place = len(self.codes)
        shown = turn.observation.images if turn.observation else ()
        urls = _urls(shown, f"turn{place}")
        view = view_turn(store_turn(turn, tuple(urls)), self.num_images)
        self.codes.append(turn.code)
        self.figures[place] = Figures(self.num_images, tuple(image.size for image in shown))
        self.num_images += len(shown)
        sizes = {k: image.size for k, image in enumerate(self.opening.images)}
        looks = find_looks(self.codes, sizes, self.videos, self.figures, exact=self.exact)
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
