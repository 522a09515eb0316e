"""`rl --engine verl --dry-run`: our configuration, the data, and every setting in verl's words."""

from __future__ import annotations

from importlib.util import find_spec

from pyvision_rl.data.validate import validate_file
from pyvision_rl.distributed.config import MAY_CHANGE, DistributedConfig
from pyvision_rl.distributed.mapping import hydra_overrides, model_path, resolve_base
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.loading import check_architecture
from pyvision_rl.preflight.dry_run import MAX_PROBLEMS, DryRun, check_prompts
from pyvision_rl.preflight.out_folder import check_run_folder
from pyvision_rl.rl.train import MAY_CHANGE as RL_MAY_CHANGE
from pyvision_rl.runs.config import dump_config


def dry_run_verl(config: DistributedConfig, memory_gb: float = 0.0) -> DryRun:
    """Check a run's configuration, data, base and folder. Raises PyVisionError for a prompt or a
    folder that cannot be used, and where verl, if it is installed, does not take the settings.
    """
    if memory_gb:
        raise ConfigError("memory_gb: on verl no memory is estimated")
    report = validate_file(config.data, image_root=config.image_root or None)
    config = resolve_base(config)
    check_prompts(config.agent.rollout)
    overrides = hydra_overrides(config)
    model, has_model = _model(config)
    lines = [
        dump_config(config).rstrip(),
        "",
        *report.lines(MAX_PROBLEMS),
        "",
        f"settings of verl ({_verdict(config)}):",
        *(f"  {override}" for override in overrides),
        "",
        model,
        check_run_folder(config.out, config, resume=True, may_change=(*RL_MAY_CHANGE, *MAY_CHANGE)),
    ]
    return DryRun(tuple(lines), report.ok and has_model)


def _model(config: DistributedConfig) -> tuple[str, bool]:
    """What the base is, and whether it can be trained; settings are shown without a hub, too."""
    try:
        check_architecture(model_path(config))
    except InputError as error:
        return str(error), False
    return f"model {config.policy.model}: a qwen2_5_vl", True


def _verdict(config: DistributedConfig) -> str:
    if not find_spec("verl"):
        return "verl is not installed here: not checked"
    from pyvision_rl.distributed.compose import compose_config

    compose_config(config)
    return "verl takes them"
