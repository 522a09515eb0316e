"""One episode: the policy writes, the sandbox answers, until there is an answer or a limit.

An episode never raises for what the policy does: a failing program is an observation, a broken
interaction a stop reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Literal

from PIL.Image import Image

from pyvision_rl.data.media import load_image
from pyvision_rl.errors import ConfigError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import Engine, SamplingParams, Session
from pyvision_rl.model.images import fit_image
from pyvision_rl.rollout.parse import Action, parse_action
from pyvision_rl.rollout.prompts import load_template, render_prompt
from pyvision_rl.rollout.runtime import ProgramRuntime, RuntimePool
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.rollout.setup import check_setup, load_setup
from pyvision_rl.rollout.videos import VideoConfig, frame_info, open_video
from pyvision_rl.sandbox import CellResult
from pyvision_rl.types import Completion, Context, Observation, StopReason, Task, Trajectory, Turn

LEAST_TEMPERATURE = 1e-3
"""Above greedy: logits divided by less overflow."""
LOST_KINDS = frozenset({"sandbox_lost"})
FAILED_CALL = CellResult("error", "RuntimeError: the interpreter is not available", [], 0.0)
DEAD_KINDS = frozenset({"killed_timeout", "killed_memory", "dead", "protocol"})


@dataclass(frozen=True)
class RolloutConfig:
    """Limits and sampling of an episode. Defaults are the paper's for training (Sec. 4.1)."""

    prompt: str = "image"
    """Shipped prompt template by name, or a file of your own (`file.txt`, `file.json:key`)."""
    setup: str = ""
    """Python file that every runtime runs before the policy's first program, to define tools of
    your own; empty: none."""
    images_in_context: bool = True
    """Whether the given images are in the prompt; they are in the runtime in any case."""
    video: VideoConfig = field(default_factory=VideoConfig)
    """Prompt and frames of tasks with videos."""
    max_tool_calls: int = 4
    """Programs that may run; one more turn is left for the answer. 0: no tool."""
    max_tokens: int = 32768
    """Tokens of a whole trajectory: prompt, completions and observations."""
    max_completion_tokens: int = 10240
    """Tokens of one completion."""
    max_images: int = 32
    """Images in the context, given and shown; frames of a `uniform` context may be more."""
    on_error: Literal["continue", "end"] = "continue"
    """Show a failing program's error to the policy, or end the episode as the paper's code does."""
    temperature: float = 1.0
    """Sampling temperature, at least 0.001; 0 is greedy."""
    top_p: float = 1.0
    """Smallest share of probability to sample from; 1 is all."""
    top_k: int = 0
    """Number of tokens to sample from; 0 is all."""
    share_cells: bool = True
    """Whether a program that several episodes of a group run after the same programs runs once for
    all of them. Their interpreters then have one seed."""
    fail_calls: float = 0.0
    """For ablations: share of the programs that are not run and end in an error instead, drawn by
    the trajectory's seed."""

    def __post_init__(self) -> None:
        positive = ("max_tokens", "max_completion_tokens", "max_images")
        for name in positive:
            if getattr(self, name) < 1:
                raise ConfigError(f"rollout.{name}: {getattr(self, name)}, must be at least 1")
        if self.max_tool_calls < 0 or self.temperature < 0 or self.top_k < 0:
            raise ConfigError("rollout: max_tool_calls, temperature and top_k must not be negative")
        if 0 < self.temperature < LEAST_TEMPERATURE:
            least = f"must be 0 or at least {LEAST_TEMPERATURE}"
            raise ConfigError(f"rollout.temperature: {self.temperature}, {least}")
        if not 0 <= self.fail_calls <= 1:
            raise ConfigError(f"rollout.fail_calls: {self.fail_calls}, must be from 0 to 1")
        if self.video.context == "hybrid" and self.video.num_frames >= self.max_images:
            raise ConfigError(
                f"rollout.video.num_frames: {self.video.num_frames}, must be below max_images "
                f"({self.max_images}) for programs to show any"
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"rollout.top_p: {self.top_p}, must be above 0 and at most 1")

    def tool_calls_for(self, task: Task) -> int:
        """Programs that may run in an episode of this task: none in a uniform context."""
        has_tool = not task.videos or self.video.context != "uniform"
        return self.max_tool_calls if has_tool else 0


@dataclass(frozen=True)
class Agent:
    """A policy with hands: what an episode needs, shared by all episodes."""

    engine: Engine
    codec: ChatCodec
    pool: RuntimePool
    config: RolloutConfig

    @cached_property
    def template(self) -> str:
        """The prompt template of tasks without videos."""
        return load_template(self.config.prompt)

    @cached_property
    def video_template(self) -> str:
        """The prompt template of tasks with videos."""
        return load_template(self.config.video.template)

    @cached_property
    def setup(self) -> str:
        """The program that runs before the policy's first one; mostly none."""
        return load_setup(self.config.setup)


@dataclass(frozen=True)
class Opening:
    """A task made ready: media read once, and the prompt that all of a group's episodes share.

    `images` are those of the runtime: the task's and, in a hybrid context, frames of its videos.
    """

    task: Task
    images: tuple[Image, ...]
    prompt: Observation
    max_tool_calls: int


def open_task(agent: Agent, task: Task) -> Opening:
    """Read a task's media and render its prompt. Raises InputError for unreadable media."""
    config, codec = agent.config, agent.codec
    images = tuple(load_image(path) for path in task.images)
    videos = [open_video(path, config.video) for path in task.videos]
    template = agent.video_template if videos else agent.template
    seen = frame_info(videos, config.video, len(images))
    text = render_prompt(template, task.question, images, [v.info for v in videos], seen)
    frames = (frame for video in videos for frame in video.frames())
    if videos and config.video.context == "uniform":
        fitted = [fit_image(frame, codec.pixels) for frame in frames]
        given = images if config.images_in_context else ()
        prompt = codec.prompt(text, given, unnamed=fitted)
        return Opening(task, images, prompt, config.tool_calls_for(task))
    named = (*images, *frames)
    first = 0 if config.images_in_context else len(images)
    prompt = codec.prompt(text, named[first:], first)
    return Opening(task, named, prompt, config.tool_calls_for(task))


OnTurn = Callable[[Turn], None]
"""Called with each turn as soon as it is complete, its observation included."""


async def run_episode(
    agent: Agent, opening: Opening, seed: int, on_turn: OnTurn | None = None
) -> Trajectory:
    """Play one episode to its end. All randomness, the runtime's too, comes from `seed`."""
    runtime = agent.pool.runtime(images=opening.images, videos=opening.task.videos, seed=seed)
    async with agent.engine.session() as session, runtime as open_runtime:
        return await _Episode(agent, opening, seed, session, open_runtime, on_turn).play()


class _Episode:
    """The turns so far and the two partners of the conversation."""

    def __init__(
        self,
        agent: Agent,
        opening: Opening,
        seed: int,
        session: Session,
        runtime: ProgramRuntime,
        on_turn: OnTurn | None,
    ) -> None:
        self.agent = agent
        self.opening = opening
        self.seed = seed
        self.session = session
        self.runtime = runtime
        self.on_turn = on_turn
        self.setup = agent.setup
        self.turns: list[Turn] = []
        self.num_tokens = len(opening.prompt.token_ids)
        self.num_images = len(opening.prompt.images)

    async def play(self) -> Trajectory:
        while self.num_tokens < self.agent.config.max_tokens:
            completion = await self._complete()
            action = parse_action(completion.text)
            stop = self._ending(completion, action)
            if stop is None and action.code is not None:
                stop = await self._call(completion, action.code)
            else:
                self._add(Turn(completion, None, action.code))
            if stop is not None:
                return self._end(stop, action.answer if stop is StopReason.ANSWERED else None)
        return self._end(StopReason.MAX_TOKENS, None)

    async def _complete(self) -> Completion:
        config = self.agent.config
        params = SamplingParams(
            max_tokens=min(config.max_completion_tokens, config.max_tokens - self.num_tokens),
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
        )
        context = Context(self.opening.task.id, self.opening.prompt, tuple(self.turns))
        seed = derive_seed(self.seed, len(self.turns))
        completion = await self.session.generate(context, params, seed=seed)
        self.num_tokens += len(completion.token_ids)
        return completion

    def _ending(self, completion: Completion, action: Action) -> StopReason | None:
        if completion.finish == "length":
            return StopReason.MAX_TOKENS
        if action.answer is not None:
            return StopReason.ANSWERED
        if action.code is None:
            return StopReason.NO_ACTION
        if len(self.turns) >= self.opening.max_tool_calls:
            return StopReason.MAX_TURNS
        return None

    async def _call(self, completion: Completion, code: str) -> StopReason | None:
        """Run a program and take its observation whole, or not at all where a limit forbids it."""
        result = FAILED_CALL if self._is_failing() else await self._run(code)
        if result.kind in LOST_KINDS:
            self._add(Turn(completion, None, code))
            return StopReason.SANDBOX_LOST
        observation = self._observe(completion, result)
        stop = self._over_limit(observation)
        self._add(Turn(completion, observation if stop is None else None, code))
        if stop is None and not observation.ok and self.agent.config.on_error == "end":
            return StopReason.CODE_ERROR
        self.num_tokens += len(observation.token_ids)
        self.num_images += len(observation.images)
        return stop

    async def _run(self, code: str) -> CellResult:
        """Run a program, and before the first one the setup."""
        if self.setup:
            setup, self.setup = self.setup, ""
            result = await self.runtime.run(setup)
            if not check_setup(self.agent.config.setup, result):
                return replace(result, kind="sandbox_lost", images=[])
        return await self.runtime.run(code)

    def _is_failing(self) -> bool:
        """Whether this turn's program fails without being run."""
        chance = Random(derive_seed(self.seed, "fail", len(self.turns))).random()
        return chance < self.agent.config.fail_calls

    def _add(self, turn: Turn) -> None:
        self.turns.append(turn)
        if self.on_turn:
            self.on_turn(turn)

    def _observe(self, completion: Completion, result: CellResult) -> Observation:
        """What the policy reads; figures of a dead runtime are not shown, their names are gone."""
        ok = result.kind == "ok"
        images: Sequence[Image] = () if result.kind in DEAD_KINDS else result.images
        first = len(self.opening.images) + self.num_images - len(self.opening.prompt.images)
        return self.agent.codec.observation(completion, result.text.strip(), images, first, ok)

    def _over_limit(self, observation: Observation) -> StopReason | None:
        config = self.agent.config
        if self.num_tokens + len(observation.token_ids) >= config.max_tokens:
            return StopReason.MAX_TOKENS
        if self.num_images + len(observation.images) > config.max_images:
            return StopReason.MAX_IMAGES
        return None

    def _end(self, stop: StopReason, answer: str | None) -> Trajectory:
        return Trajectory(
            task=self.opening.task,
            prompt=self.opening.prompt,
            turns=tuple(self.turns),
            stop=stop,
            answer=answer,
            seed=self.seed,
        )
