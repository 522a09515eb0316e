"""Starting the agent server: an agent opened, the port bound, all closed together."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass, field, replace

import uvicorn

from pyvision_rl.address import bind
from pyvision_rl.errors import ConfigError
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.model.server_config import ServerConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.rollout.server_agent import open_any_agent
from pyvision_rl.runs.config import resolve_model
from pyvision_rl.serve.app import AgentServer, ServeLimits

logger = logging.getLogger(__name__)

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")
SHUTDOWN_S = 5


@dataclass(frozen=True)
class ServeConfig:
    """An agent behind OpenAI's chat interface."""

    model: str = ""
    """Checkpoint folder, run folder or hub id; or give `server`."""
    server: str = ""
    """Address of an OpenAI-compatible model server, up to and with /v1."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8100
    """Port to listen at."""
    name: str = "pyvision-rl"
    """Name of the model that clients see."""
    limits: ServeLimits = field(default_factory=ServeLimits)
    """How much is taken on at once."""
    policy: PolicyConfig = field(default_factory=lambda: PolicyConfig(model=""))
    """How `model` is loaded; its name is that of `model`."""
    endpoint: ServerConfig = field(default_factory=ServerConfig)
    """How `server` is asked; its url is that of `server`."""
    agent: AgentConfig = field(
        default_factory=lambda: AgentConfig(rollout=RolloutConfig(max_tool_calls=30))
    )
    """Engine, sandbox, and limits and sampling where a request says nothing else."""

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ConfigError(f"serve: port {self.port}, must be from 1 to 65535")


async def run_serve(config: ServeConfig) -> None:
    """Serve until the process is told to stop. Raises PyVisionError where it cannot start."""
    with bind(config.host, config.port) as taken:
        await _serve(config, taken)


async def _serve(config: ServeConfig, taken: socket.socket) -> None:
    policy = replace(config.policy, model=resolve_model(config.model))
    server = replace(config.endpoint, url=config.server)
    if config.host not in LOCAL and not config.limits.api_key_env:
        logger.warning("%s is reachable from outside, and anyone may ask", config.host)
    async with open_any_agent(policy, server, config.agent) as agent:
        app = AgentServer(agent, config.name, config.limits).app(hosts_for(config))
        settings = uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level="warning",
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        logger.info("serving %s at http://%s:%d/v1", config.name, config.host, config.port)
        await uvicorn.Server(settings).serve(sockets=[taken])


def hosts_for(config: ServeConfig) -> tuple[str, ...]:
    """Names under which it may be asked: on a loopback address without a key only this machine's
    own, so that no web page reaches it by a name that leads here.
    """
    is_open = config.host not in LOCAL or config.limits.api_key_env
    return ("*",) if is_open else LOCAL
