"""Whether a model server answers, asked for nothing but its model's name."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.server_config import ServerConfig


def check_served(server: ServerConfig) -> str:
    """One line that says what a server serves. Raises PyVisionError where it does not answer."""
    return asyncio.run(_served(server))


async def _served(server: ServerConfig) -> str:
    try:
        from pyvision_rl.model.server_client import ServerClient
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a server needs {error.name}: pip install 'pyvision-rl[server]'"
        ) from error
    async with ServerClient(replace(server, max_retries=0)) as client:
        return f"server {server.url}: serves {await client.model()}"
