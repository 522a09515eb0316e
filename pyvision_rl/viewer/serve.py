"""The commands behind `pyvision-rl view`: serving a library, or writing one page of it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import uvicorn
from starlette.routing import BaseRoute

from pyvision_rl.address import bind
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.runs.files import write_file
from pyvision_rl.viewer.app import make_app, view_routes
from pyvision_rl.viewer.export import export_page
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.query import parse_query

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class ViewConfig:
    """A local web page over run folders, live while runs go on; or one file to send."""

    runs: list[str]
    """Run folders, or folders that hold some."""
    port: int = 8765
    """Port to listen on; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on. Others than this machine's own let everyone on the network in."""
    export: str = ""
    """Write this HTML file instead of serving: self-contained, to send to someone."""
    where: str = ""
    """What to export: the part after the ? of a list's address, as in step=12&right=no."""
    limit: int = 50
    """Trajectories to export at most."""
    run: str = ""
    """Which run to export where there are several."""

    def __post_init__(self) -> None:
        check_port(self.port)
        if self.limit < 1:
            raise ConfigError(f"limit: {self.limit}, must be at least 1")


def check_port(port: int) -> None:
    """Raise ConfigError unless it can be a port."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"port: {port}, must be from 0 to 65535")


def run_view(config: ViewConfig, say: Callable[[str], None]) -> None:
    """Serve until interrupted, or write the exported file. Raises InputError."""
    library = Library([Path(run) for run in config.runs])
    if config.export:
        say(f"export  {_export(library, config)}")
    else:
        serve(view_routes(library), config.host, config.port, say)


def serve(routes: Sequence[BaseRoute], host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve an application of these routes until interrupted. Raises ConfigError for a taken port.

    On a loopback address, requests that name another host are refused.
    """
    server, listener = _prepare(routes, host, port, say)
    server.run([listener])


async def serve_async(routes: Sequence[BaseRoute], port: int, say: Callable[[str], None]) -> None:
    """As `serve`, on this machine's own address, inside a loop that runs already."""
    server, listener = _prepare(routes, LOOPBACK[0], port, say)
    await server.serve([listener])


def _prepare(
    routes: Sequence[BaseRoute], host: str, port: int, say: Callable[[str], None]
) -> tuple[uvicorn.Server, socket.socket]:
    listener = _listen(host, port)
    is_local = host in LOOPBACK
    app = make_app(routes, LOOPBACK if is_local else ("*",))
    if not is_local:
        logger.warning("%s: everyone who reaches this machine can read what is shown", host)
    name = "127.0.0.1" if is_local else host
    say(f"viewer  http://{name}:{listener.getsockname()[1]}/  (Ctrl-C ends it)")
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")), listener


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = bind(host, port)
    except ConfigError as error:
        raise ConfigError(f"{error}; try --port 0") from error
    listener.listen()  # from here on a browser may come: it waits for the server
    return listener


def _export(library: Library, config: ViewConfig) -> Path:
    names = [name for name in library.names if len(library.run(name).table)]
    chosen = config.run or (names[0] if len(names) == 1 else "")
    if not chosen:
        raise InputError(f"export: name one with --run: {', '.join(names) or 'none has any'}")
    query = parse_query(dict(parse_qsl(config.where)))
    path = Path(config.export)
    write_file(path, export_page(library.run(chosen), chosen, query, config.limit))
    return path
