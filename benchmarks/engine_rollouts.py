"""Rollouts of our engine beside plain `generate`, and beside itself with a barrier between turns.

`python benchmarks/engine_rollouts.py` prints, for trajectories like the quickstart's (36 visual
tokens, 1 to 4 turns of about 50 tokens, 9 more visual tokens after each): CPU seconds of all model
work; wall seconds where one tool call in sixteen sleeps 2 s, by a clock that counts the CPU time of
this process and what it waits, so that other work on the machine does not matter; and CPU per
trajectory as their number grows. Tools are sleeps, none is shared between members of a group.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made.clock import run_quietly
from made.policies import random_policy
from PIL import Image

from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.hf_engine import EngineConfig, HFEngine
from pyvision_rl.model.inputs import make_patches
from pyvision_rl.model.policy import Policy
from pyvision_rl.types import Completion, Context, Observation, Turn

GROUP_SIZE = 8


def picture(seed: int, side: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class Plan:
    """The turns of one trajectory: how long each is, and how long its tool takes."""

    def __init__(self, seed: int, sleep_s: float) -> None:
        rng = random.Random(seed)
        self.seed = seed
        calls = rng.choice([0, 1, 1, 2, 2, 3])
        self.lengths = [*(rng.randint(42, 56) for _ in range(calls)), rng.randint(12, 22)]
        self.sleeps_s = [sleep_s if rng.random() < 1 / 16 else 0.02 for _ in range(calls)]

    def params(self, turn: int) -> SamplingParams:
        return SamplingParams(max_tokens=self.lengths[turn], stop=())

    def observe(self, policy: Policy, completion: Completion, turn: int) -> Observation:
        # Members of a group often cut out the same cell.
        image = picture(self.seed // 4 * 10 + turn, 84)
        return policy.codec.observation(completion, "", [image], 1 + turn, True)


def prompts(policy: Policy, count: int) -> list[Observation]:
    text = "find the red tag, which digit is on it?"
    return [policy.codec.prompt(text, [picture(seed, 168)]) for seed in range(count)]


async def play(engine: HFEngine, plan: Plan, prompt: Observation) -> Context:
    context = Context(str(plan.seed), prompt)
    async with engine.session() as session:
        for turn, _ in enumerate(plan.lengths):
            completion = await session.generate(context, plan.params(turn), seed=plan.seed + turn)
            observation = None
            if turn < len(plan.sleeps_s):
                await asyncio.sleep(plan.sleeps_s[turn])
                observation = plan.observe(engine.policy, completion, turn)
            context = Context(context.id, prompt, (*context.turns, Turn(completion, observation)))
    return context


def roll_out(
    policy: Policy, plans: Sequence[Plan], config: EngineConfig
) -> tuple[list[Context], float]:
    """The trajectories, and the wall seconds that they take where nothing else runs."""
    openings = prompts(policy, len(plans) // GROUP_SIZE)
    policy.load_state(policy.model.state_dict())

    async def main() -> list[Context]:
        async with HFEngine(policy, config) as engine:
            jobs = (
                play(engine, plan, openings[index // GROUP_SIZE])
                for index, plan in enumerate(plans)
            )
            return await asyncio.gather(*jobs)

    return run_quietly(main())


@torch.inference_mode()
def generate_turn(policy: Policy, rows: Sequence[tuple[Plan, Context]], turn: int) -> list[Context]:
    """One turn of every row by transformers' `generate`: whole contexts, as long as the longest."""
    length = max(len(context.token_ids) for _, context in rows)
    ids = torch.full((len(rows), length), policy.pad_id)
    for index, (_, context) in enumerate(rows):
        ids[index, length - len(context.token_ids) :] = torch.tensor(context.token_ids)
    pixels, grids = make_patches(
        policy.vision.processor, [image for _, context in rows for image in context.images]
    )
    model: Any = policy.model
    out: Any = model.generate(
        input_ids=ids,
        attention_mask=(ids != policy.pad_id).int(),
        pixel_values=pixels,
        image_grid_thw=grids,
        mm_token_type_ids=(ids == policy.codec.image_pad_id).int(),
        suppress_tokens=list(policy.banned_ids),
        do_sample=True,
        max_new_tokens=max(plan.lengths[turn] for plan, _ in rows),
        return_dict_in_generate=True,
        output_logits=True,
    )
    contexts = []
    for index, (plan, context) in enumerate(rows):
        written = tuple(out.sequences[index, length : length + plan.lengths[turn]].tolist())
        completion = Completion(written, (0.0,) * len(written), "", "length")
        observation = None
        if turn < len(plan.sleeps_s):
            observation = plan.observe(policy, completion, turn)
        turns = (*context.turns, Turn(completion, observation))
        contexts.append(Context(context.id, context.prompt, turns))
    return contexts


def roll_out_by_generate(policy: Policy, plans: Sequence[Plan]) -> None:
    openings = prompts(policy, len(plans) // GROUP_SIZE)
    rows = [(p, Context("", openings[index // GROUP_SIZE])) for index, p in enumerate(plans)]
    for turn in range(max(len(plan.lengths) for plan in plans)):
        rows = [(plan, context) for plan, context in rows if turn < len(plan.lengths)]
        contexts = generate_turn(policy, rows, turn)
        rows = [(plan, context) for (plan, _), context in zip(rows, contexts, strict=True)]


def compare_with_generate(policy: Policy, count: int) -> None:
    plans = [Plan(seed, 0.02) for seed in range(count)]
    roll_out(policy, plans[:16], EngineConfig())
    start = time.process_time()
    contexts, _ = roll_out(policy, plans, EngineConfig())
    ours = time.process_time() - start
    tokens = sum(len(t.completion.token_ids) for c in contexts for t in c.turns)
    start = time.process_time()
    roll_out_by_generate(policy, plans)
    theirs = time.process_time() - start
    print(f"{count} trajectories, {tokens} tokens: CPU {ours:.2f} s, generate {theirs:.2f} s")
    print(f"RATIO | engine: CPU of rollouts | transformers generate | {theirs / ours:.2f}")


def compare_with_barrier(policy: Policy, count: int) -> None:
    slow = [Plan(seed, 2.0) for seed in range(count)]
    walls = {}
    for schedule in ("continuous", "barrier"):
        _, walls[schedule] = roll_out(policy, slow, EngineConfig(schedule=schedule))
    share = walls["continuous"] / walls["barrier"]
    shown = ", ".join(f"{name} {wall:.2f} s" for name, wall in walls.items())
    print(f"one call in 16 sleeps 2 s, wall: {shown}, {share:.0%}")
    print(f"RATIO | engine: wall with slow tools | a barrier between turns | {1 / share:.2f}")


def grow(policy: Policy, most: int) -> None:
    size = 64
    while size <= most:
        many = [Plan(seed, 0.02) for seed in range(size)]
        start = time.process_time()
        roll_out(policy, many, EngineConfig())
        each_ms = (time.process_time() - start) / size * 1e3
        print(f"{size} trajectories at once: {each_ms:.1f} ms CPU each")
        size *= 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=128)
    parser.add_argument("--most", type=int, default=1024, help="largest number of trajectories")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        policy = random_policy(Path(folder))
        compare_with_generate(policy, options.trajectories)
        compare_with_barrier(policy, options.trajectories)
        grow(policy, options.most)


if __name__ == "__main__":
    main()
