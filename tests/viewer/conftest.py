"""A few runs, a server over them, and a real browser that must not complain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.routing import BaseRoute

from pyvision_rl.viewer.app import make_app, view_routes
from pyvision_rl.viewer.library import Library
from tests.viewer.chromium import CHROMIUM, Browser, Tab, running
from tests.viewer.make_run import write_run
from tests.viewer.odd import write_odd_run


@contextmanager
def serving(
    routes: Sequence[BaseRoute], loop: asyncio.AbstractEventLoop | None = None
) -> Iterator[str]:
    """The address of a server in a thread, or in a loop that runs in one already."""
    app = make_app(routes, ("127.0.0.1",))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    if loop:
        ended = asyncio.run_coroutine_threadsafe(server._serve(), loop)
    else:
        ended = ThreadPoolExecutor(1).submit(server.run)
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        ended.result(60)


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """A folder with `rl`, 3 steps of 4 groups of 4, and `odd`."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "rl", num_steps=3, num_groups=4, group_size=4)
    write_odd_run(folder / "odd")
    return folder


@pytest.fixture(scope="session")
def library(runs) -> Library:
    return Library([runs])


@pytest.fixture(scope="session")
def url(library) -> Iterator[str]:
    with serving(view_routes(library)) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; its tests are skipped where it is missing."""
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with running() as browser:
        yield browser


@pytest.fixture
def tab(browser) -> Iterator[Tab]:
    """A tab of which the browser must not complain."""
    tab = browser.tab()
    yield tab
    tab.close()
    assert tab.complaints == []
