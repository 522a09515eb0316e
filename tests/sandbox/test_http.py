"""The pool behind HTTP: the same answers as without, and nothing without the token."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
from PIL import Image

from pyvision_rl.errors import ConfigError, InputError, SandboxError
from pyvision_rl.sandbox import SandboxConfig

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from pyvision_rl.sandbox.remote.client import SandboxClient  # noqa: E402
from pyvision_rl.sandbox.remote.server import SandboxServer, ServeConfig, read_token  # noqa: E402

TOKEN = "a token of sufficient length"


@contextlib.asynccontextmanager
async def serving(config: ServeConfig) -> AsyncIterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = SandboxServer(config).app(TOKEN)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def with_server(
    scenario: Callable[[str], Coroutine[None, None, None]], config: ServeConfig | None = None
) -> None:
    async def run() -> None:
        async with serving(config or ServeConfig(SandboxConfig(timeout_s=1.0))) as url:
            await scenario(url)

    asyncio.run(run())


def test_cells_run_there_as_they_run_here() -> None:
    image = Image.effect_noise((9, 7), 50).convert("RGB")

    async def scenario(url: str) -> None:
        async with SandboxClient([url + "/"], TOKEN) as client:
            async with client.runtime(images=[image], seed=3) as runtime:
                assert (await runtime.run("print(image_clue_0.size); x = 4")).text == "(9, 7)\n"
                shown = await runtime.run("plt.figure(figsize=(2, 1)); plt.show(); print(x)")
                assert (shown.kind, shown.text) == ("ok", "4\n")
                assert [figure.size for figure in shown.images] == [(200, 100)]
                assert (await runtime.run("1 / 0")).kind == "error"
                assert (await runtime.run("while True:\n    pass")).kind == "timeout"
                assert runtime.alive
                assert (await runtime.run("os._exit(1)")).kind == "dead"
                assert not runtime.alive
            assert (await runtime.run("x")).kind == "dead"
            metrics = (await client.http.get(url + "/metrics")).text
            assert "sandbox_runtimes 0\n" in metrics
            assert 'sandbox_cells_total{kind="ok"} 2' in metrics

    with_server(scenario)


def test_code_that_is_no_unicode_runs_there_as_here() -> None:
    async def scenario(url: str) -> None:
        async with SandboxClient([url], TOKEN) as client, client.runtime() as runtime:
            assert (await runtime.run("print('\ud800')")).text == "?\n"

    with_server(scenario)


def test_nothing_without_the_token() -> None:
    async def scenario(url: str) -> None:
        async with httpx.AsyncClient() as stranger:
            assert (await stranger.get(url + "/health")).status_code == 200
            for token in ("", "Bearer", "Bearer wrong", TOKEN):
                headers = {"Authorization": token}
                assert (await stranger.post(url + "/runtimes", headers=headers)).status_code == 401
                assert (await stranger.get(url + "/metrics", headers=headers)).status_code == 401
        async with SandboxClient([url], "wrong") as client:
            assert (await client.runtime().run("x = 1")).kind == "sandbox_lost"

    with_server(scenario)


def test_malformed_and_excessive_requests_are_refused(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(headers=headers) as client:
            no_text = b"\x19\0\0\0\x83\xa4seed\0\xa6images\x90\xa6videos\x91\xa1\xff"
            for body in (b"", b"\xff\xff\xff\xff", b"\x01\0\0\0\x90", bytes(100), no_text):
                assert (await client.post(url + "/runtimes", content=body)).status_code == 400
            large = await client.post(url + "/runtimes", content=bytes((1 << 20) + 1))
            assert large.status_code == 413
            assert (await client.post(url + "/runtimes/nobody/run")).status_code == 404
            assert (await client.delete(url + "/runtimes/nobody")).status_code == 404
        async with SandboxClient([url], TOKEN) as pool:
            outside = pool.runtime(videos=["../secret.mp4"])
            result = await outside.run("x = 1")
            assert result.kind == "sandbox_lost"
            assert "not below this server's video folder" in result.text
            first, second = pool.runtime(), pool.runtime()
            assert (await first.run("x = 1")).kind == "ok"
            assert "503" in (await second.run("x = 1")).text

    config = ServeConfig(max_body_mb=1, max_runtimes=1, video_folder=str(tmp_path))
    with_server(scenario, config)


def test_an_abandoned_runtime_is_closed() -> None:
    async def scenario(url: str) -> None:
        async with SandboxClient([url], TOKEN) as client:
            runtime = client.runtime()
            assert (await runtime.run("x = 1")).kind == "ok"
            while "sandbox_runtimes 0\n" not in (await client.http.get(url + "/metrics")).text:
                await asyncio.sleep(0.1)
            assert (await runtime.run("x")).kind == "sandbox_lost"

    with_server(scenario, ServeConfig(idle_s=0.5))


def test_a_server_that_is_not_there_is_named() -> None:
    async def scenario() -> None:
        async with SandboxClient(["http://127.0.0.1:9"], TOKEN):
            pass

    with pytest.raises(SandboxError, match=r"http://127\.0\.0\.1:9 does not answer"):
        asyncio.run(scenario())


def test_runtimes_spread_over_the_servers() -> None:
    urls = [f"http://server-{k}" for k in range(4)]
    client = SandboxClient(urls, TOKEN)
    chosen = [client.runtime()._server for _ in range(400)]
    assert all(chosen.count(url) > 50 for url in urls)
    asyncio.run(client.close())


def test_addresses_and_tokens_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"host 0\.0\.0\.0 .* needs a token_file"):
        ServeConfig(host="0.0.0.0")
    with pytest.raises(InputError, match="no such file"):
        read_token(ServeConfig(token_file=str(tmp_path / "none")))
    (tmp_path / "short").write_text("short\n")
    with pytest.raises(InputError, match="5 characters in line 1, at least 16"):
        read_token(ServeConfig(token_file=str(tmp_path / "short")))
    (tmp_path / "good").write_text(TOKEN + "\n")
    assert read_token(ServeConfig(token_file=str(tmp_path / "good"))) == TOKEN
