"""What `pyvision-rl sandbox ...` does: plain functions that return their report, or serve
until stopped.
"""

from __future__ import annotations

import asyncio

from pyvision_rl.address import bind
from pyvision_rl.errors import ConfigError
from pyvision_rl.sandbox.bench import BenchConfig, bench
from pyvision_rl.sandbox.config import SandboxConfig
from pyvision_rl.sandbox.pool import SandboxPool
from pyvision_rl.sandbox.trace import trace

__all__ = ["BenchConfig", "bench", "probe", "serve", "trace"]

STOPS = {
    "seccomp": "processes, sockets, tracing, mounts, keyrings: every system call not on a list",
    "landlock": "reading host files, writing outside scratch, signals to others (ABI 6)",
    "namespaces": "host files, processes and network are not there at all; scratch is bounded",
    "own uid": "files and processes of other runtimes and of this user; counts threads",
    "no_new_privs": "regaining rights; memory, file size and descriptors beyond the limits",
}


def probe() -> tuple[str, bool]:
    """A table of the layers on this machine and what each stops; and whether strict would start."""

    async def ask() -> tuple[list[str], list[str]]:
        async with SandboxPool(SandboxConfig(isolation="best_effort")) as pool:
            return pool.layers, pool.missing

    layers, missing = asyncio.run(ask())
    lines = []
    for name, stops in STOPS.items():
        on = next((layer for layer in layers if layer.startswith(name)), None)
        reason = next((m.split(": ", 1)[1] for m in missing if m.startswith(name)), "not root")
        lines.append(
            f"{'on ' if on else 'off'}  {on or f'{name} ({reason})'}\n       stops {stops}"
        )
    names = " ".join(layers)
    holds = "seccomp" in names and ("landlock" in names or "namespaces" in names)
    verdict = "strict isolation holds here" if holds else "isolation strict refuses to start here"
    return "\n".join([*lines, verdict]), holds


def serve(config: object = None) -> None:
    """Serve a pool over HTTP until stopped; `config` is a `server.ServeConfig`."""
    try:
        import uvicorn

        from pyvision_rl.sandbox.remote.server import SandboxServer, ServeConfig, read_token
    except ImportError as error:
        raise ConfigError(
            f"sandbox serve needs {error.name}: pip install 'pyvision-rl[server]'"
        ) from None
    config = config if isinstance(config, ServeConfig) else ServeConfig()
    with bind(config.host, config.port) as taken:
        app = SandboxServer(config).app(read_token(config))
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([taken])
