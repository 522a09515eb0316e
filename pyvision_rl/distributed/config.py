"""What a run needs to know where it is spread over many GPUs, and what it cannot do there."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from pyvision_rl.errors import ConfigError
from pyvision_rl.rl.config import RLConfig


@dataclass(frozen=True)
class VerlConfig:
    """Machines and memory of a run on verl. The defaults are for 8 GPUs of 80 GB and 7B weights."""

    num_nodes: int = 1
    """Machines that train."""
    gpus_per_node: int = 8
    """GPUs of each; every one samples and trains in turn."""
    tensor_parallel: int = 1
    """GPUs that hold one copy of the sampler together."""
    sequence_parallel: int = 1
    """GPUs that share the tokens of a trajectory in training."""
    sampler_memory: float = 0.6
    """Share of a GPU's memory that the sampler fills with weights and cache."""
    offload: bool = False
    """Keep weights and optimizer state in the host's memory while they are not used."""
    flash_attention: bool = True
    """Train on packed rows; needs the package flash-attn. Off: PyTorch's attention, padded rows."""
    players_per_node: int = 4
    """Processes on each machine that play episodes, each with a sandbox pool; they share its
    cores."""
    ray_address: str = ""
    """Ray cluster to join, "auto" for this machine's; empty: one is started here."""
    overrides: tuple[str, ...] = ()
    """Settings of verl in its own words (`trainer.device=npu`), put over all others."""

    def __post_init__(self) -> None:
        for name in (
            "num_nodes",
            "gpus_per_node",
            "tensor_parallel",
            "sequence_parallel",
            "players_per_node",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"verl.{name}: {getattr(self, name)}, must be at least 1")
        if not 0 < self.sampler_memory < 1:
            raise ConfigError(
                f"verl.sampler_memory: {self.sampler_memory}, must be above 0, below 1"
            )
        gpus = self.num_nodes * self.gpus_per_node
        for name in ("tensor_parallel", "sequence_parallel"):
            if gpus % getattr(self, name):
                raise ConfigError(
                    f"verl.{name}: {getattr(self, name)}, must divide the {gpus} GPUs of all nodes"
                )
        if self.sequence_parallel > 1 and not self.flash_attention:
            raise ConfigError("verl.sequence_parallel: above 1 only with flash_attention")


@dataclass(frozen=True)
class DistributedConfig(RLConfig):
    """An RL run and the engine that it is to run on."""

    engine: Literal["embedded", "verl"] = "embedded"
    """embedded: this process. verl: a Ray cluster of many GPUs."""
    verl: VerlConfig = field(default_factory=VerlConfig)
    """Machines, where the engine is verl."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "verl" and self.policy.lora.rank:
            raise ConfigError(
                f"policy.lora.rank: {self.policy.lora.rank}; on verl all weights are trained, "
                "adapters are for the embedded engine"
            )
        if self.engine == "verl" and self.verl.flash_attention and self.policy.dtype == "float32":
            raise ConfigError(
                "verl.flash_attention: computes in bfloat16 only, policy.dtype is float32; "
                "change one of them"
            )

    def embedded(self) -> RLConfig:
        """The run alone, as the embedded engine takes it and records it."""
        return RLConfig(**{entry.name: getattr(self, entry.name) for entry in fields(RLConfig)})


MAY_CHANGE = (
    "learner.micro_batch_tokens",
    "verl.offload",
    "verl.players_per_node",
    "verl.ray_address",
    "verl.sampler_memory",
    "verl.tensor_parallel",
    "verl.overrides",
)
"""What a resumed run on verl may set anew, besides what every run may: where things are, and what
helps where memory ran out."""
