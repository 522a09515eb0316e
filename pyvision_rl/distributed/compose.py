"""Our settings laid over verl's own configuration tree, and what verl says to them."""

from __future__ import annotations

import contextlib
import io

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from verl.utils.config import validate_config

from pyvision_rl.distributed.config import DistributedConfig
from pyvision_rl.distributed.mapping import hydra_overrides
from pyvision_rl.errors import ConfigError


def compose_config(config: DistributedConfig) -> DictConfig:
    """verl's own configuration tree for a run. ConfigError says what verl does not take."""
    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            tree = compose("ppo_trainer", hydra_overrides(config))
        OmegaConf.resolve(tree)
        with contextlib.redirect_stdout(io.StringIO()):
            validate_config(tree, use_reference_policy=False, use_critic=False)
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError) as error:
        raise ConfigError(f"verl takes no such configuration: {first_line(error)}") from error
    tree.transfer_queue.enable = True
    return tree


def first_line(error: BaseException) -> str:
    """What an error says first, its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
