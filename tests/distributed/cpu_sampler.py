"""verl's samplers on our own engine: `rollout.name=hf`. Imported where `external_lib` is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import ray
import torch
from PIL.Image import Image
from verl.workers.rollout import base
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.hf_engine import HFEngine
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.types import Context, Observation

NAME = "hf"


class Server:
    """One sampler: the embedded engine behind verl's interface."""

    def __init__(self, model: str) -> None:
        torch.set_num_threads(1)
        self.policy = Policy.load(PolicyConfig(model))
        self.engine: HFEngine | None = None
        self.step = 0

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict,
        image_data: list[Image] | None = None,
        video_data: None = None,
    ) -> TokenOutput:
        if self.engine is None:
            self.engine = await HFEngine(self.policy).__aenter__()
        prompt = Observation(tuple(prompt_ids), "", tuple(image_data or ()), 0)
        params = SamplingParams(
            max_tokens=sampling_params["max_tokens"],
            temperature=sampling_params["temperature"],
            stop=tuple(sampling_params["stop"]),
        )
        async with self.engine.session() as session:
            completion = await session.generate(
                Context(request_id, prompt), params, seed=sampling_params["seed"]
            )
        return TokenOutput(
            token_ids=list(completion.token_ids),
            log_probs=list(completion.logprobs),
            stop_reason="completed",
            extra_fields={"global_steps": self.step},
        )

    async def update_weights(self, state: dict[str, torch.Tensor], step: int) -> None:
        self.policy.load_state(state)
        self.step = step

    async def sleep(self) -> None: ...

    async def wake_up(self) -> None: ...

    async def clear_kv_cache(self) -> None: ...


class Replica(RolloutReplica):
    """Starts a server."""

    async def launch_servers(self) -> None:
        name = server_name(self.replica_rank)
        options = {"name": name, "max_concurrency": 1000, "num_cpus": 0}
        self._server_handle = ray.remote(Server).options(**options).remote(self.model_config.path)
        self._server_address = name
        self.servers = [self._server_handle]


class Adapter(BaseRollout):
    """Hands a rank's weights to its server."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(
        self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int = 0, **_: object
    ) -> None:
        state = {name: weight.detach().cpu().clone() for name, weight in weights}
        server = ray.get_actor(server_name(int(os.environ["RANK"])))
        await server.update_weights.remote(state, global_steps)


def server_name(rank: int) -> str:
    return f"hf_server_{rank}"


RolloutReplicaRegistry.register(NAME, lambda: Replica)
base._ROLLOUT_REGISTRY[NAME, "async"] = f"{__name__}.{Adapter.__name__}"
