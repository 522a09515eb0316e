"""verl's training engine and its rows as a worker has them, in the tests' own process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed

from pyvision_rl.distributed.config import DistributedConfig
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.hf_engine import HFEngine
from pyvision_rl.model.policy import Policy
from pyvision_rl.types import Group, Reward, StopReason, Task, Trajectory
from tests.model.play import play

REWARDS = (
    (Reward(1, 0.2), Reward(0, 0), Reward(1, 0.1), Reward(0, 0)),
    (Reward(1, 0), Reward(1, 0), Reward(1, 0), Reward(0, 0)),
    (Reward(0, 0), Reward(0, 0), Reward(0, 0), Reward(0, 0)),
)


def played_groups(policy: Policy) -> tuple[Group, ...]:
    """Conversations with up to four images given and shown, and some with none."""

    async def play_all() -> list[Trajectory]:
        async with HFEngine(policy) as engine:
            contexts = await asyncio.gather(
                *(play(engine, policy.codec, seed, num_turns=1 + seed % 3) for seed in range(12))
            )
        return [
            Trajectory(
                Task(f"t{number // 4}", "Which?", "7"),
                context.prompt,
                context.turns,
                StopReason.NO_ACTION if number == 3 else StopReason.ANSWERED,
                "7",
            )
            for number, context in enumerate(contexts)
        ]

    played = asyncio.run(play_all())
    return tuple(
        Group(played[4 * place].task, tuple(played[4 * place : 4 * place + 4]), rewards)
        for place, rewards in enumerate(REWARDS)
    )


@contextmanager
def training_engine(config: DistributedConfig) -> Iterator:
    """verl's training engine as a worker builds it, in this process."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    from pyvision_rl.distributed.compose import compose_config
    from pyvision_rl.distributed.mapping import ENGINE_VARIABLE, FREEZE_VISION

    tree = compose_config(config)
    folder = Path(config.out) / "store"
    torch.distributed.init_process_group(
        backend="cpu:gloo", init_method=f"file://{folder}", rank=0, world_size=1
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENGINE_VARIABLE, FREEZE_VISION)
        actor = omega_conf_to_dataclass(tree.actor_rollout_ref.actor)
        model = omega_conf_to_dataclass(tree.actor_rollout_ref.model)
        built = EngineRegistry.new(
            model_type="language_model",
            backend=actor.engine.strategy,
            model_config=model,
            engine_config=actor.engine,
            optimizer_config=actor.optim,
            checkpoint_config=actor.checkpoint,
        )
        built.initialize()
    try:
        yield built
    finally:
        torch.distributed.destroy_process_group()


def rows_of(samples: Sequence[Sample], policy: Policy, max_tokens: int, *, is_packed: bool = False):
    """What a worker has got from the queue: packed by the queue, and looked at by verl's worker."""
    from tensordict import TensorDict
    from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager
    from verl.utils import tensordict_utils as tu

    from pyvision_rl.distributed.rows import make_rows

    rows = make_rows(samples, policy.codec.image_pad_id, 1, seed=0)
    pack = AsyncSimpleStorageManager._pack_field_values
    packed = {name: pack([row.fields[name] for row in rows]) for name in rows[0].fields}
    data = TensorDict(packed, batch_size=[len(rows)])
    tu.maybe_fix_3d_position_ids(data)
    tu.assign_non_tensor(
        data,
        use_remove_padding=is_packed,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=max_tokens,
        temperature=1.0,
        calculate_entropy=False,
        global_batch_size=len(rows),
    )
    return data
