"""The viewer's web application: JSON and images over the runs of a library. Changes nothing."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec
import pyarrow.compute as pc
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyvision_rl.errors import InputError
from pyvision_rl.runs import MetricRow
from pyvision_rl.viewer.detail import (
    find_neighbours,
    list_rows,
    stored_trajectory,
    view_group,
    view_groups,
    view_trajectory,
)
from pyvision_rl.viewer.export import export_page
from pyvision_rl.viewer.index import Ref, RunIndex
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.media import film_strip, original_image, video_frame
from pyvision_rl.viewer.query import Query, parse_query
from pyvision_rl.viewer.search import find_excerpts, find_rows, read_ahead
from pyvision_rl.viewer.tokens import TokenReader

STATIC = Path(str(resources.files("pyvision_rl.viewer") / "static"))
MAX_PAGE = 200
"""Trajectories in one page of a list."""
MAX_EXPORT = 200
"""Trajectories in one exported page that is asked for in the browser."""

SEARCH_S = 0.4
"""What one request may spend on looking through turns; the page asks again until all is done."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_FACETS = {"phases": "phase", "stops": "stop", "sources": "source", "kinds": "ability"}

Params = Mapping[str, str]


def make_app(routes: Sequence[BaseRoute], hosts: Sequence[str]) -> Starlette:
    """An application of these routes, the front end, and the headers that keep content harmless.

    Requests to other host names than `hosts` are refused: no page elsewhere can reach the viewer
    by a name that leads to this machine.
    """
    return Starlette(
        routes=[
            *routes,
            Route("/", _index),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
            Middleware(_HarmlessContent),
        ],
    )


def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


class _HarmlessContent:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = [*_HEADERS]
                if b"cache-control" not in present:
                    extra.append((b"cache-control", b"no-cache"))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def view_routes(library: Library) -> list[BaseRoute]:
    """The routes over a library of runs."""
    return _Api(library).routes()


class _Api:
    """One method per address; a lock makes each see the library at one moment."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.lock = threading.Lock()
        self.tokenizers: dict[str, TokenReader] = {}

    def routes(self) -> list[BaseRoute]:
        answers: dict[str, Callable[[Params], object]] = {
            "hello": lambda params: {"mode": "runs"},
            "runs": self.runs,
            "metrics": self.metrics,
            "groups": self.groups,
            "group": self.group,
            "trajectories": self.trajectories,
            "read_ahead": self.read_ahead,
            "trajectory": self.trajectory,
            "neighbours": self.neighbours,
            "tokens": self.tokens,
        }
        return [
            *[Route(f"/api/{name}", self._json(answer)) for name, answer in answers.items()],
            Route("/image", self._guarded(self.image)),
            Route("/original", self._guarded(self.original)),
            Route("/film", self._guarded(self.film)),
            Route("/frame", self._guarded(self.frame)),
            Route("/export", self._guarded(self.export)),
        ]

    def runs(self, params: Params) -> object:
        """Every run's state, after looking for what is new."""
        self.library.refresh()
        return [self.library.state(name) for name in self.library.names]

    def metrics(self, params: Params) -> object:
        rows = self._run(params).metrics()
        keys = sorted({key for row in rows for key in row.values})
        return {
            "steps": [row.step for row in rows],
            "unix_s": [row.unix_s for row in rows],
            "values": {key: [row.values.get(key) for row in rows] for key in keys},
            # In JSON a value that is not finite is null, as one that was not logged.
            "spoilt": {key: places for key in keys if (places := _not_finite(rows, key))},
        }

    def groups(self, params: Params) -> object:
        run = self._run(params)
        phase, step = _text(params, "phase"), _number(params, "step")
        steps = [number for name, number in run.steps if name == phase]
        return {"steps": steps, "groups": view_groups(run, phase, step)}

    def group(self, params: Params) -> object:
        ref = _ref(params)
        return view_group(self._run(params), ref.phase, ref.step, ref.group)

    def trajectories(self, params: Params) -> object:
        run, query = self._run(params), _query(params)
        offset, limit = _number(params, "offset", 0), _number(params, "limit", 50)
        fit = find_rows(run, query, SEARCH_S)
        places = fit.places.slice(offset, min(limit, MAX_PAGE))
        facets = {
            name: sorted(value for value in pc.unique(run.table[column]).to_pylist() if value)
            for name, column in {**_FACETS, "reasons": "dropped"}.items()
        }
        return {
            "total": len(fit.places),
            "all": len(run.table),
            "rows": list_rows(run, places),
            "excerpts": find_excerpts(run, query, places),
            "searched": fit.searched,
            "facets": facets,
        }

    def read_ahead(self, params: Params) -> object:
        return read_ahead(self._run(params), SEARCH_S)

    def trajectory(self, params: Params) -> object:
        run, ref = self._run(params), _ref(params)
        part = run.part(ref.phase, ref.step)
        siblings = part.filter(pc.equal(part["group"], ref.group)).drop_columns(["seed"])
        return {
            "view": view_trajectory(run, ref),
            "siblings": siblings.to_pylist(),
            "neighbours": self.neighbours(params),
        }

    def neighbours(self, params: Params) -> object:
        run = self._run(params)
        fit = find_rows(run, _query(params), SEARCH_S)
        return {**asdict(find_neighbours(run, fit, _ref(params))), "searched": fit.searched}

    def tokens(self, params: Params) -> object:
        run, name = self._run(params), _text(params, "run")
        reader = self.tokenizers.get(name)
        if reader is None or not reader.known:  # a checkpoint may have come since
            reader = self.tokenizers[name] = TokenReader(run.reader)
        return reader.view(stored_trajectory(run, _ref(params)))

    def image(self, params: Params) -> Response:
        """An image as it was shown; its name is its content, so a browser may keep it."""
        run = self._run(params)
        step, phase = _number(params, "step"), _text(params, "phase")
        run.part(phase, step)  # a phase of this run: it is part of a path
        png = run.reader.image(step, phase, _text(params, "sha1"))
        return Response(png, media_type="image/png", headers=_keep(86_400))

    def original(self, params: Params) -> Response:
        """The task's own image file, decoded and encoded anew."""
        images = stored_trajectory(self._run(params), _ref(params)).task_images
        k = _number(params, "k")
        if not 0 <= k < len(images):
            raise InputError(f"no image {k}: the task has {len(images)}")
        data, kind = original_image(images[k])
        return Response(data, media_type=kind, headers=_keep(600))

    def film(self, params: Params) -> Response:
        """A few frames of the task's video, side by side."""
        return _jpeg(film_strip(self._video_path(params)))

    def frame(self, params: Params) -> Response:
        """One frame of the task's video."""
        return _jpeg(video_frame(self._video_path(params), _number(params, "frame")))

    def _video_path(self, params: Params) -> str:
        videos = stored_trajectory(self._run(params), _ref(params)).task_videos
        k = _number(params, "k")
        if not 0 <= k < len(videos):
            raise InputError(f"no video {k}: the task has {len(videos)}")
        return videos[k]

    def export(self, params: Params) -> Response:
        name = _text(params, "run")
        page = export_page(self._run(params), name, _query(params), MAX_EXPORT)
        headers = {"content-disposition": 'attachment; filename="trajectories.html"'}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    def _run(self, params: Params) -> RunIndex:
        return self.library.run(_text(params, "run"))

    def _json(self, answer: Callable[[Params], object]) -> Callable[[Request], Response]:
        def respond(params: Params) -> Response:
            body = msgspec.json.encode(answer(params))
            return Response(body, media_type="application/json")

        return self._guarded(respond)

    def _guarded(self, respond: Callable[[Params], Response]) -> Callable[[Request], Response]:
        """Input that cannot be used is a 404 with one line; anything else is a fault of ours."""

        def endpoint(request: Request) -> Response:
            try:
                with self.lock:
                    return respond(request.query_params)
            except InputError as error:
                body = msgspec.json.encode({"error": str(error)})
                return Response(body, status_code=404, media_type="application/json")

        return endpoint


_PLACE = ("run", "group", "index", "offset", "limit", "k", "sha1", "in")


def _query(params: Params) -> Query:
    """The filter: `in` holds it as an address of its own where the rest names a trajectory."""
    if "in" in params:
        return parse_query(dict(parse_qsl(params["in"])))
    return parse_query({key: value for key, value in params.items() if key not in _PLACE})


def _ref(params: Params) -> Ref:
    return Ref(
        phase=_text(params, "phase"),
        step=_number(params, "step"),
        group=_number(params, "group"),
        index=_number(params, "index", 0),
    )


def _not_finite(rows: Sequence[MetricRow], key: str) -> list[int]:
    """Places of the rows in which a metric is logged and not finite."""
    return [place for place, row in enumerate(rows) if not math.isfinite(row.values.get(key, 0.0))]


def _text(params: Params, name: str) -> str:
    if name not in params:
        raise InputError(f"address without {name}")
    return params[name]


def _number(params: Params, name: str, default: int | None = None) -> int:
    value = params.get(name, "" if default is None else str(default))
    if not value.isdecimal() or len(value) > 15:
        raise InputError(f"address with {name}={value!r}: must be a whole number")
    return int(value)


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers=_keep(600))


def _keep(seconds: int) -> dict[str, str]:
    return {"cache-control": f"private, max-age={seconds}"}
