"""The options of a dry run, apart from its code: commands that run for real import only these."""

from __future__ import annotations

from dataclasses import dataclass

from pyvision_rl.errors import ConfigError


@dataclass(frozen=True)
class DryRunConfig:
    """Whether a stage only says what it would do."""

    dry_run: bool = False
    """Resolve and print the configuration, check the data, estimate memory; run nothing."""
    memory_gb: float = 0.0
    """Memory of the device to plan for; 0: what is free on the device that is here."""

    def __post_init__(self) -> None:
        if self.memory_gb < 0:
            raise ConfigError(f"memory_gb: {self.memory_gb}, must not be negative")
