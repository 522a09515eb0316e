"""Whether a model server answers: its model's name, and of vLLM whether it can be sampled from by
token ids.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.model.server_config import ServerConfig


def check_served(server: ServerConfig) -> str:
    """One line that says what a server serves.

    Raises PyVisionError where it does not answer, or is a vLLM started with other options than its
    engine needs.
    """
    return asyncio.run(_served(server))


async def _served(server: ServerConfig) -> str:
    try:
        from pyvision_rl.model.server_client import ServerClient
        from pyvision_rl.model.vllm_engine import VLLMEngine
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a server needs {error.name}: pip install 'pyvision-rl[server]'"
        ) from error
    async with ServerClient(replace(server, max_retries=0)) as client:
        line = f"server {server.url}: serves {await client.model()}"
        if server.api == "vllm":
            codec = ChatCodec.from_folder(checkpoint_folder(server.tokenizer), server.pixels)
            await VLLMEngine(client, codec, ()).check()
            line += ", by token ids"
        return line
