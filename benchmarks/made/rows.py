"""Rows of a training step, from a seed: groups of the embedded task with their images, and texts.

No policy is needed: members play the oracle's turns, as often as a cold start looks, and go wrong
as often as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from PIL import Image

from pyvision_rl.data.needle import (
    GRID,
    KINDS,
    Look,
    NeedleItem,
    NeedlePlan,
    TraceTurn,
    item_seed,
    make_item,
    needed_looks,
    trace_turns,
)
from pyvision_rl.data.needle_draw import crop_of
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.inputs import content_rows
from pyvision_rl.model.policy import Policy
from pyvision_rl.model.prefix_tree import merge
from pyvision_rl.rl.samples import make_sample
from pyvision_rl.rollout.prompts import load_template, render_prompt
from pyvision_rl.sft.needle import NeedleTraceConfig
from pyvision_rl.types import Completion, Observation, StopReason, Task, Trajectory, Turn

GROUP_SIZE = 8
WRONG_CELL = 0.15
WRONG_DIGIT = 0.15
DIGITS = "0123456789"
PROMPT = 100


def needle_groups(policy: Policy, num_groups: int, seed: int = 0) -> list[list[Trajectory]]:
    """Groups of 8 on items of all kinds in turn."""
    rng = Random(seed)
    groups = []
    for index in range(num_groups):
        item = make_item(item_seed("train", seed, index), KINDS[index % len(KINDS)])
        groups.append(_group(policy, item, rng))
    return groups


def needle_rows(policy: Policy, num_groups: int, seed: int = 0) -> list[Sample]:
    """The samples of such groups, one group after the other."""
    return as_samples(needle_groups(policy, num_groups, seed))


def as_samples(groups: Sequence[Sequence[Trajectory]]) -> list[Sample]:
    """Advantages alternate: what they are costs nothing."""
    return [
        make_sample(trajectory, 0.5 - index % 2)
        for group in groups
        for index, trajectory in enumerate(group)
    ]


def part_at_once(policy: Policy, rows: Sequence[Sample]) -> list[Sample]:
    """The same rows, but that the members of a group begin to write with different tokens."""
    words = policy.codec.encode_completion("0 1 2 3 4 5 6 7")[0]
    changed = []
    for index, row in enumerate(rows):
        ids, first = list(row.token_ids), row.loss_mask.index(1)
        ids[first] = words[index % GROUP_SIZE]
        changed.append(replace(row, token_ids=tuple(ids)))
    return changed


def _group(policy: Policy, item: NeedleItem, rng: Random) -> list[Trajectory]:
    task = Task(str(item.seed), item.question, item.plan.answer)
    image = Image.fromarray(item.image)
    text = render_prompt(load_template("brief"), item.question, [image])
    prompt = policy.codec.prompt(text, [image])
    return [_member(policy, item, task, prompt, rng) for _ in range(GROUP_SIZE)]


def _member(
    policy: Policy, item: NeedleItem, task: Task, prompt: Observation, rng: Random
) -> Trajectory:
    plan = _erring(item.plan, rng)
    (num_looks,) = rng.choices((0, 1, 2), NeedleTraceConfig().shares(plan.kind))
    if num_looks < needed_looks(plan.kind):
        plan = replace(plan, answer=rng.choice(DIGITS))
    steps = trace_turns(plan, num_looks)
    turns = tuple(_turn(policy, item, step, number) for number, step in enumerate(steps, start=1))
    return Trajectory(task, prompt, turns, StopReason.ANSWERED, plan.answer)


def _erring(plan: NeedlePlan, rng: Random) -> NeedlePlan:
    looks = tuple(
        Look(look.colour, rng.randrange(GRID), rng.randrange(GRID))
        if rng.random() < WRONG_CELL
        else look
        for look in plan.looks
    )
    answer = rng.choice(DIGITS) if rng.random() < WRONG_DIGIT else plan.answer
    return replace(plan, looks=looks, answer=answer)


def _turn(policy: Policy, item: NeedleItem, step: TraceTurn, number: int) -> Turn:
    ids = policy.codec.encode_completion(step.text)[0]
    # Sampling stops at the end of the code, before the turn is closed.
    ids = ids[:-1] if step.look else ids
    completion = Completion(ids, (-0.1,) * len(ids), step.text, "stop")
    if step.look is None:
        return Turn(completion, None)
    crop = Image.fromarray(crop_of(item.image, step.look.row, step.look.column))
    return Turn(completion, policy.codec.observation(completion, "", [crop], number, True))


def text_rows(policy: Policy, count: int) -> list[Sample]:
    """Rows that share nothing and show nothing: a prompt of 100 random tokens, then a sampled, a
    seen and a sampled part, 150 to 420 tokens in all.
    """
    rng = Random(0)
    words = policy.codec.encode_completion("find the red tag, which digit is on it?")[0][:-1]
    rows = []
    for _ in range(count):
        written, seen, answer = rng.randint(30, 60), rng.randint(10, 220), rng.randint(10, 40)
        mask = (0,) * PROMPT + (1,) * written + (0,) * seen + (1,) * answer
        ids = tuple(rng.choices(words, k=len(mask)))
        logprobs = tuple(-6.0 * sampled for sampled in mask)
        rows.append(Sample(ids, mask, logprobs, rng.choice((-0.5, 0.5)), ()))
    return rows


def num_computed(policy: Policy, rows: Sequence[Sample]) -> int:
    """Tokens that are left where a common beginning counts once."""
    parts = [(row.token_ids, row.images) for row in rows]
    return merge(content_rows(parts, policy.codec.image_pad_id)).num_nodes
