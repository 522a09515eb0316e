"""Opening an agent whose policy lies behind a model server, or wherever it lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import Engine
from pyvision_rl.model.loading import checkpoint_folder, never_written, vocabulary_size
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.server_config import ServerConfig
from pyvision_rl.rollout.agent import AgentConfig, open_agent
from pyvision_rl.rollout.episode import Agent
from pyvision_rl.sandbox import SandboxPool


@asynccontextmanager
async def open_server_agent(
    server: ServerConfig, config: AgentConfig, pool: SandboxPool | None = None
) -> AsyncIterator[Agent]:
    """Connect to a server, and start a sandbox pool where none that runs is given.

    Raises PyVisionError in one line where the server cannot be reached.
    """
    try:
        from pyvision_rl.model.server_client import ServerClient
        from pyvision_rl.model.server_engine import ServerEngine
        from pyvision_rl.model.vllm_engine import VLLMEngine
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a server needs {error.name}: pip install 'pyvision-rl[server]'"
        ) from error
    folder = checkpoint_folder(server.tokenizer)
    codec = ChatCodec.from_folder(folder, server.pixels)
    async with ServerClient(server) as client:
        engine: Engine = ServerEngine(client, codec)
        if server.api == "vllm":
            engine = VLLMEngine(client, codec, never_written(codec, vocabulary_size(folder)))
            await engine.check()
        await client.model()
        async with nullcontext(pool) if pool else SandboxPool(config.sandbox) as open_pool:
            yield Agent(engine, codec, open_pool, config.rollout)


@asynccontextmanager
async def open_any_agent(
    policy: PolicyConfig, server: ServerConfig, config: AgentConfig
) -> AsyncIterator[Agent]:
    """The agent of a checkpoint (`policy.model`) or of a server (`server.url`), whichever is named.

    Raises ConfigError where both or neither are.
    """
    if bool(policy.model) == bool(server.url):
        raise ConfigError("give either model, a checkpoint, or server, an address")
    if server.url:
        async with open_server_agent(server, config) as agent:
            yield agent
    else:
        async with open_agent(Policy.load(policy), config) as agent:
            yield agent
