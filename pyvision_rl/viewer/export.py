"""Trajectories as one HTML file that needs nothing else: to keep, or to send to a colleague."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Collection, Iterable
from importlib import resources

import msgspec

from pyvision_rl.errors import InputError
from pyvision_rl.runs.images import read_pngs
from pyvision_rl.runs.records import record_path
from pyvision_rl.viewer.detail import TrajectoryView, view_group
from pyvision_rl.viewer.index import REF, Ref, RunIndex
from pyvision_rl.viewer.media import film_strip, original_image
from pyvision_rl.viewer.query import Query
from pyvision_rl.viewer.search import find_rows
from pyvision_rl.viewer.tokens import TokenReader

logger = logging.getLogger(__name__)

MODULES = (
    "dom.js",
    "source.js",
    "charts.js",
    "boxes.js",
    "lightbox.js",
    "turns.js",
    "overview.js",
    "groups.js",
    "hits.js",
    "list.js",
    "trajectory.js",
    "ask.js",
    "main.js",
)
"""The front end's modules, each after those that it imports; no two share a top-level name."""

_STATIC = resources.files("pyvision_rl.viewer") / "static"


def export_page(run: RunIndex, name: str, query: Query, limit: int) -> bytes:
    """The first `limit` trajectories that fit, with their images, tokens and the page itself.

    Raises InputError where none fits.
    """
    places = find_rows(run, query).places.slice(0, limit)
    refs = [Ref(**row) for row in run.table.select(REF).take(places).to_pylist()]
    if not refs:
        raise InputError(f"{run.reader.path}: no trajectory fits, nothing to export")
    collected = _Collected(run)
    for phase, step, group in sorted({(ref.phase, ref.step, ref.group) for ref in refs}):
        collected.add_group(phase, step, group, set(refs))
    return _page(
        {
            "run": name,
            "items": [collected.items[ref] for ref in refs],
            "images": collected.images,
            "originals": collected.originals,
            "films": collected.films,
        }
    )


class _Collected:
    """What the file will carry, each image once."""

    def __init__(self, run: RunIndex) -> None:
        self.run = run
        self.tokens = TokenReader(run.reader)
        self.items: dict[Ref, dict[str, object]] = {}
        self.images: dict[str, str] = {}
        self.originals: dict[str, str] = {}
        self.films: dict[str, str] = {}

    def add_group(self, phase: str, step: int, group: int, wanted: Collection[Ref]) -> None:
        stored = {member.index: member for member in self.run.reader.stored(step, phase, [group])}
        for view in view_group(self.run, phase, step, group):
            if view.ref in wanted:
                member = stored[view.ref.index]
                self.items[view.ref] = {"view": view, "tokens": self.tokens.view(member)}
                self._add_images(phase, step, member.image_names)
                self._add_originals(view)

    def _add_images(self, phase: str, step: int, names: set[str]) -> None:
        path = record_path(self.run.reader.path, "images", phase, step)
        pngs = read_pngs(path, names - self.images.keys())
        self.images |= {sha1: _url(png, "image/png") for sha1, png in pngs.items()}

    def _add_originals(self, view: TrajectoryView) -> None:
        """The task's own files by path, those that are still there and can be read."""
        for image in view.images:
            if image.has_file and image.path not in self.originals:
                try:
                    self.originals[image.path] = _url(*original_image(image.path))
                except InputError as error:
                    logger.warning("%s", error)
        for video in view.videos:
            if video.num_frames and video.path not in self.films:
                try:
                    self.films[video.path] = _url(film_strip(video.path), "image/jpeg")
                except InputError as error:
                    logger.warning("%s", error)


def _url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _page(data: dict[str, object]) -> bytes:
    style = (_STATIC / "style.css").read_text("utf-8")
    script = bundle()
    policy = (
        f"default-src 'none'; img-src data: blob:; script-src '{_digest(script)}'; "
        f"style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
    )
    # Inside a script element only "<" could end it or open a comment.
    payload = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>PyVision-RL trajectories</title>
<style>{style}</style>
</head>
<body>
<script type="application/json" id="embedded">{payload}</script>
<script type="module">{script}</script>
</body>
</html>
""".encode()


def bundle() -> str:
    """All modules as one: imports and the word `export` left out."""
    return "\n".join(_lines_of(MODULES))


def _lines_of(modules: Iterable[str]) -> Iterable[str]:
    for module in modules:
        for line in (_STATIC / module).read_text("utf-8").splitlines():
            if not line.startswith("import "):
                yield line.removeprefix("export ")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
