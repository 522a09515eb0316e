"""Rollouts of our engine beside plain `generate`, and beside itself with a barrier between turns.

`python benchmarks/engine_rollouts.py` prints, for trajectories like the quickstart's (36 visual
tokens, 1 to 4 turns of about 50 tokens, 9 more visual tokens after each): CPU seconds of all model
work; wall seconds where one tool call in sixteen sleeps 2 s; CPU per trajectory as their number
grows; and milliseconds a sample of the training forward and backward.
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
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from pyvision_rl.model.batch import Sample, collate, split_by_tokens
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.hf_engine import EngineConfig, HFEngine
from pyvision_rl.model.inputs import make_patches
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.tiny import tiny_config, train_tokenizer
from pyvision_rl.types import Completion, Context, Observation, Turn

GROUP_SIZE = 8
CORPUS = ["find the red tag, which digit is on it? plt.imshow(image_clue_0.crop()) </code>"]


def make_policy(folder: Path) -> Policy:
    """The tiny architecture with random weights, which rarely stop by themselves."""
    tokenizer = train_tokenizer(CORPUS, 450)
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Policy.load(PolicyConfig(str(folder)))


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


def roll_out(policy: Policy, plans: Sequence[Plan], config: EngineConfig) -> list[Context]:
    openings = prompts(policy, len(plans) // GROUP_SIZE)
    policy.load_state(policy.model.state_dict())

    async def main() -> list[Context]:
        async with HFEngine(policy, config) as engine:
            jobs = (
                play(engine, plan, openings[index // GROUP_SIZE])
                for index, plan in enumerate(plans)
            )
            return await asyncio.gather(*jobs)

    return asyncio.run(main())


@torch.inference_mode()
def generate_turn(policy: Policy, rows: Sequence[tuple[Plan, Context]], turn: int) -> list[Context]:
    """One turn of every row by transformers' `generate`: whole contexts, as long as the longest."""
    length = max(len(context.token_ids) for _, context in rows)
    ids = torch.full((len(rows), length), policy.pad_id)
    for index, (_, context) in enumerate(rows):
        ids[index, length - len(context.token_ids) :] = torch.tensor(context.token_ids)
    pixels, grids = make_patches(
        policy.processor, [image for _, context in rows for image in context.images]
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


def time_training(policy: Policy, samples: Sequence[Sample]) -> None:
    mean = sum(len(sample.token_ids) for sample in samples) / len(samples)
    for size in (2048, 32768):
        start = time.process_time()
        for part in split_by_tokens(samples, size):
            batch = collate(part, policy.pad_id, policy.device)
            logprobs, _ = policy.token_logprobs(
                batch.token_ids_BT, batch.attention_mask_BT, batch.loss_mask_BT, batch.images
            )
            logprobs.sum().backward()
        policy.model.zero_grad()
        each_ms = (time.process_time() - start) / len(samples) * 1e3
        print(f"training by {size} tokens: {each_ms:.1f} ms a sample of {mean:.0f} tokens")


def as_sample(context: Context) -> Sample:
    mask = [0] * len(context.prompt.token_ids)
    for turn in context.turns:
        mask += [1] * len(turn.completion.token_ids)
        mask += [0] * len(turn.observation.token_ids if turn.observation else ())
    return Sample(context.token_ids, tuple(mask), (0.0,) * len(mask), 0.0, context.images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=128)
    parser.add_argument("--most", type=int, default=1024, help="largest number of trajectories")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        policy = make_policy(Path(folder))
        count = options.trajectories
        plans = [Plan(seed, 0.02) for seed in range(count)]
        roll_out(policy, plans[:16], EngineConfig())
        start = time.process_time()
        contexts = roll_out(policy, plans, EngineConfig())
        ours = time.process_time() - start
        tokens = sum(len(t.completion.token_ids) for c in contexts for t in c.turns)
        start = time.process_time()
        roll_out_by_generate(policy, plans)
        theirs = time.process_time() - start
        print(f"{count} trajectories, {tokens} tokens: CPU {ours:.2f} s, generate {theirs:.2f} s")
        print(f"RATIO | engine: CPU of rollouts | transformers generate | {theirs / ours:.2f}")
        walls = {}
        slow = [Plan(seed, 2.0) for seed in range(count)]
        for schedule in ("continuous", "barrier"):
            start = time.perf_counter()
            roll_out(policy, slow, EngineConfig(schedule=schedule))
            walls[schedule] = time.perf_counter() - start
        print("one call in 16 sleeps 2 s: wall", {k: round(v, 2) for k, v in walls.items()})
        gain = walls["barrier"] / walls["continuous"]
        print(f"RATIO | engine: wall with slow tools | a barrier between turns | {gain:.2f}")
        size = 64
        while size <= options.most:
            many = [Plan(seed, 0.02) for seed in range(size)]
            start = time.process_time()
            roll_out(policy, many, EngineConfig())
            each_ms = (time.process_time() - start) / size * 1e3
            print(f"{size} trajectories at once: {each_ms:.1f} ms CPU each")
            size *= 4
        time_training(policy, [as_sample(context) for context in contexts])


if __name__ == "__main__":
    main()
