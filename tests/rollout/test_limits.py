"""What an episode asks of its engine and its runtime, token by token; neither is real here."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from PIL import Image

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.scripted import ScriptedEngine
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.sandbox import CellResult
from pyvision_rl.types import Completion, Context, StopReason, Task, Trajectory

TASK = Task("t", "Which digit is on the red tag?", "7")
CALL = "look\n<code>\n```python\n1\n```\n</code>"
ANSWER = "I see 7.\n<answer>\n\\boxed{7}\n</answer>"
CONFIG = RolloutConfig(
    prompt="brief", max_tool_calls=2, max_tokens=2000, max_completion_tokens=300, max_images=2
)
OK = CellResult("ok", "1", [], 0.0)
PICTURE = Image.new("RGB", (56, 28))


@dataclass(frozen=True)
class NotingEngine(ScriptedEngine):
    """Calls the tool as often as it is told, then answers; notes what it was asked."""

    asked: list[tuple[SamplingParams, int]] = field(default_factory=list)

    @asynccontextmanager
    async def session(self):
        yield self

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        self.asked.append((params, seed))
        return await super().generate(context, params, seed=seed)


@dataclass
class NotingPool:
    """Gives the same result for every program; notes the seeds of its runtimes."""

    result: CellResult = OK
    seeds: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def runtime(self, *, images, videos, seed):
        self.seeds.append(seed)
        yield self

    async def run(self, code: str) -> CellResult:
        return self.result


def play(
    codec: ChatCodec,
    config: RolloutConfig = CONFIG,
    num_calls: int = 1,
    result: CellResult = OK,
    seed: int = 1,
) -> tuple[Trajectory, NotingEngine, NotingPool]:
    engine = NotingEngine(codec, lambda c: CALL if len(c.turns) < num_calls else ANSWER)
    pool = NotingPool(result)
    agent = Agent(engine, codec, pool, config)
    trajectory = asyncio.run(run_episode(agent, open_task(agent, TASK), seed))
    return trajectory, engine, pool


def sizes(trajectory: Trajectory) -> tuple[int, int, int]:
    """Tokens of the prompt, the first completion and the first observation."""
    first = trajectory.turns[0]
    assert first.observation is not None
    return (
        len(trajectory.prompt.token_ids),
        len(first.completion.token_ids),
        len(first.observation.token_ids),
    )


def test_a_completion_may_have_what_is_left_of_the_trajectory(codec):
    whole, engine, _ = play(codec)
    assert [params.max_tokens for params, _ in engine.asked] == [300, 300]
    total = len(whole.context.token_ids)
    answer = len(whole.turns[-1].completion.token_ids)

    just, engine, _ = play(codec, replace(CONFIG, max_tokens=total))
    assert just.stop is StopReason.ANSWERED
    assert [params.max_tokens for params, _ in engine.asked][1] == answer

    short, engine, _ = play(codec, replace(CONFIG, max_tokens=total - 1))
    assert (short.stop, short.answer) == (StopReason.MAX_TOKENS, None)
    assert [params.max_tokens for params, _ in engine.asked][1] == answer - 1
    assert len(short.context.token_ids) == total - 1


def test_an_observation_enters_where_a_token_can_follow_it(codec):
    filled = sum(sizes(play(codec)[0]))
    none_left, _, _ = play(codec, replace(CONFIG, max_tokens=filled))
    assert none_left.stop is StopReason.MAX_TOKENS
    assert [turn.observation for turn in none_left.turns] == [None]

    one_left, engine, _ = play(codec, replace(CONFIG, max_tokens=filled + 1))
    assert one_left.stop is StopReason.MAX_TOKENS
    assert one_left.turns[0].observation is not None
    assert engine.asked[1][0].max_tokens == 1


def test_every_observation_counts(codec):
    """Two calls of the same size: the third completion has what both and their results left."""
    _, engine, _ = play(codec, replace(CONFIG, max_completion_tokens=2000), num_calls=2)
    prompt, completion, observation = sizes(play(codec)[0])
    left = [2000 - prompt - turn * (completion + observation) for turn in range(3)]
    assert [params.max_tokens for params, _ in engine.asked] == left


def test_sampling_is_as_configured(codec):
    config = replace(CONFIG, temperature=0.7, top_p=0.9, top_k=5)
    _, engine, _ = play(codec, config)
    asked = [(params.temperature, params.top_p, params.top_k) for params, _ in engine.asked]
    assert asked == [(0.7, 0.9, 5)] * 2


def test_every_turn_has_a_seed_of_its_own_and_the_runtime_the_episodes(codec):
    (_, one, pool), (_, again, _), (_, other, _) = (
        play(codec, num_calls=2, seed=seed) for seed in (1, 1, 2)
    )
    seeds = [seed for _, seed in one.asked]
    assert len(set(seeds)) == 3
    assert seeds == [seed for _, seed in again.asked]
    assert not set(seeds) & {seed for _, seed in other.asked}
    assert pool.seeds == [1]


@pytest.mark.parametrize(
    ("kind", "num_shown"),
    [
        ("ok", 1),
        ("error", 1),
        ("killed_timeout", 0),
        ("killed_memory", 0),
        ("dead", 0),
        ("protocol", 0),
    ],
)
def test_figures_of_a_runtime_that_is_gone_are_not_shown(codec, kind, num_shown):
    """Their names would be: the next program could not use them."""
    trajectory, _, _ = play(codec, result=CellResult(kind, "it ended", [PICTURE], 0.0))
    seen = trajectory.turns[0].observation
    assert seen is not None
    assert (len(seen.images), seen.ok) == (num_shown, kind == "ok")
    assert "it ended" in seen.text
    assert trajectory.stop is StopReason.ANSWERED


def test_output_is_shown_without_the_blanks_around_it(codec):
    trajectory, _, _ = play(codec, result=CellResult("ok", "\n 7 8\n\n", [], 0.0))
    seen = trajectory.turns[0].observation
    assert seen is not None
    assert "Text Result:\n7 8</interpreter>" in seen.text


def test_images_may_be_as_many_as_the_limit(codec):
    shown = CellResult("ok", "", [PICTURE], 0.0)
    trajectory, _, _ = play(codec, num_calls=2, result=shown)
    assert trajectory.stop is StopReason.ANSWERED
    assert len(trajectory.context.images) == 2
    two = CellResult("ok", "", [PICTURE] * 2, 0.0)
    trajectory, _, _ = play(codec, num_calls=2, result=two)
    assert trajectory.stop is StopReason.MAX_IMAGES
    assert len(trajectory.context.images) == 2


def test_a_failing_call_that_ends_the_episode_is_on_record(codec):
    failed = CellResult("error", "ZeroDivisionError", [PICTURE], 0.0)
    trajectory, _, _ = play(codec, replace(CONFIG, on_error="end"), result=failed)
    assert trajectory.stop is StopReason.CODE_ERROR
    assert (trajectory.num_tool_calls, trajectory.num_ok_tool_calls) == (1, 0)
    assert trajectory.looked


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fail_calls", 1.5),
        ("fail_calls", -0.1),
        ("top_k", -1),
        ("top_p", 1.1),
        ("max_images", 0),
        ("max_completion_tokens", 0),
    ],
)
def test_more_impossible_limits_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        RolloutConfig(**{field: value})
