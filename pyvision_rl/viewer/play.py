"""Asking an agent about one's own image or video: in the terminal, or as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import yaml

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rollout.agent import AgentConfig, open_agent
from pyvision_rl.rollout.episode import Opening, open_task, run_episode
from pyvision_rl.runs.config import resolve_model
from pyvision_rl.runs.folder import CONFIG
from pyvision_rl.types import Task, Trajectory, Turn
from pyvision_rl.viewer.ask import AskPage
from pyvision_rl.viewer.serve import check_port, serve_async


@dataclass(frozen=True)
class PlayConfig:
    """Ask an agent about an image or a video and watch its turns come in."""

    model: str
    """Checkpoint folder, run folder (its newest checkpoint), hub id, or tiny. Prompt, pixels and
    limits are those of the run that it comes from, where there is one."""
    question: str = ""
    """What to ask; not needed with `page`."""
    image: str = ""
    """Image file."""
    video: str = ""
    """Video file."""
    page: bool = False
    """Ask in a local web page instead."""
    port: int = 8766
    """The page's port; 0 takes a free one."""
    figures: str = ""
    """Folder to save the figures in that programs show."""
    seed: int = 0
    """Decides sampling."""
    policy: PolicyConfig = field(default_factory=lambda: PolicyConfig(model="tiny"))
    """How to load the model; which one is `model`."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Engine, sandbox, limits and sampling."""

    def __post_init__(self) -> None:
        check_port(self.port)
        if not self.page and not self.question:
            raise ConfigError("question: ask something, or use --page true")

    @property
    def task(self) -> Task:
        """The question as a task without a known answer."""
        images = (Path(self.image),) if self.image else ()
        videos = (Path(self.video),) if self.video else ()
        return Task("play", self.question, "", images, videos)


def run_defaults(model: str) -> list[str]:
    """Arguments for the prompt, pixels and limits of the run that a model comes from.

    Raises InputError for a configuration that cannot be read.
    """
    folders = [Path(model), *Path(model).absolute().parents[:2]]
    path = next((folder / CONFIG for folder in folders if (folder / CONFIG).is_file()), None)
    if path is None:
        return []
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError):
        tree = None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: not the configuration of a run")
    parts = {key: tree[key] for key in ("policy", "agent") if key in tree}
    if isinstance(parts.get("policy"), dict):
        parts["policy"].pop("model", None)
    return [f"--{key}={value}" for key, value in _leaves("", parts)]


def _leaves(prefix: str, node: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)
    else:
        yield prefix, node


class Watcher(Protocol):
    """Is told about an episode as it goes on."""

    def on_opening(self, opening: Opening) -> None:
        """The prompt is ready."""
        ...

    def on_turn(self, place: int, turn: Turn) -> None:
        """A turn is complete."""
        ...

    def on_end(self, trajectory: Trajectory) -> None:
        """The episode has ended."""
        ...


async def play(config: PlayConfig, watcher: Watcher) -> Trajectory:
    """Ask once; the watcher sees every turn when it is complete. Raises InputError."""
    policy = load_policy(config)
    async with open_agent(policy, config.agent) as agent:
        opening = open_task(agent, config.task)
        watcher.on_opening(opening)
        seen: list[Turn] = []

        def on_turn(turn: Turn) -> None:
            watcher.on_turn(len(seen), turn)
            seen.append(turn)

        trajectory = await run_episode(agent, opening, config.seed, on_turn)
    watcher.on_end(trajectory)
    return trajectory


async def play_page(config: PlayConfig, say: Callable[[str], None]) -> None:
    """Serve the page until interrupted."""
    policy = load_policy(config)
    async with open_agent(policy, config.agent) as agent:
        page = AskPage(agent, config.model, config.seed, config.agent.sandbox.figures)
        await serve_async(page.routes(), config.port, say)


def load_policy(config: PlayConfig) -> Policy:
    """The policy that `model` names. Raises InputError."""
    return Policy.load(replace(config.policy, model=resolve_model(config.model)))
