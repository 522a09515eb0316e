"""What is compared: arms, each a set of overrides of one base configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

import msgspec
import yaml

from pyvision_rl.data.needle_files import NeedleConfig
from pyvision_rl.errors import ConfigError
from pyvision_rl.eval.stage import EvalConfig
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.runs.config import dump_config


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    """What the table calls it."""
    overrides: tuple[str, ...] = ()
    """`dotted.key: value` of the RL configuration each; none: the base as it is."""


@dataclass(frozen=True)
class Ablation:
    """Arms that differ in one thing."""

    name: str
    """What the table and the figure's file call it."""
    arms: tuple[Arm, ...]
    """At least two."""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError(f"ablation {self.name}: needs two arms or more of different names")


@dataclass(frozen=True)
class AblateConfig:
    """Arms and seeds of the RL stage on the embedded task; goes on where the folder stands."""

    rl: RLConfig
    """The base of every arm; data, out and seed are set here."""
    eval: EvalConfig
    """How every arm's last checkpoint is judged; model, data, out and seed are set here."""
    out: str
    """Folder of all runs, the table and the figures."""
    ablations: tuple[Ablation, ...]
    """What is compared. Runs that several ablations share are made once."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each arm is run with each; a seed decides tasks and sampling, the data set stays."""
    common: tuple[str, ...] = ()
    """Overrides of every arm, which go before its own."""
    needle: NeedleConfig = field(default_factory=NeedleConfig)
    """Size and mixture of the tasks."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds: {self.seeds}, need at least one and each once")
        names = Counter(ablation.name for ablation in self.ablations)
        if doubled := [name for name, count in names.items() if count > 1]:
            raise ConfigError(f"ablations: {doubled[0]} is there twice")
        for ablation in self.ablations:
            for arm in ablation.arms:
                override(self.rl, (*self.common, *arm.overrides))


@dataclass(frozen=True)
class Run:
    """One training to be done: its folder's name tells the overrides apart, not the ablation."""

    name: str
    config: RLConfig


def override(config: RLConfig, overrides: Sequence[str]) -> RLConfig:
    """The configuration with some values replaced. ConfigError names an override that cannot be."""
    tree = yaml.safe_load(dump_config(config))
    for line in overrides:
        key, value = _parse(line)
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise ConfigError(f"override {line!r}: there is no key {key}")
        node[last] = value
    try:
        return msgspec.convert(tree, RLConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"overrides {', '.join(overrides)}: {error}") from error


def _parse(line: str) -> tuple[str, object]:
    try:
        entry = yaml.safe_load(line)
    except yaml.YAMLError:
        entry = None
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError(f"override {line!r}: must be of the form `dotted.key: value`")
    ((key, value),) = entry.items()
    return str(key), value


def run_of(config: AblateConfig, arm: Arm, seed: int) -> Run:
    """The run of an arm; arms that come to the same configuration share it."""
    changed = replace(override(config.rl, (*config.common, *arm.overrides)), seed=seed)
    digest = sha256(dump_config(replace(changed, out="", data="")).encode()).hexdigest()
    return Run(f"{digest[:10]}-seed{seed}", changed)


def all_runs(config: AblateConfig) -> Iterator[tuple[str, Run]]:
    """Every run once, seed by seed, with what to call it: the first arm that needs it."""
    known: set[str] = set()
    for seed in config.seeds:
        for ablation in config.ablations:
            for arm in ablation.arms:
                run = run_of(config, arm, seed)
                if run.name not in known:
                    known.add(run.name)
                    yield f"{ablation.name} = {arm.name}, seed {seed}", run
