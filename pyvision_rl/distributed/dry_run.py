"""What a run on verl would do: our configuration, the data, and every setting in verl's words."""

from __future__ import annotations

from importlib.util import find_spec

from pyvision_rl.data.validate import validate_file
from pyvision_rl.distributed.config import DistributedConfig
from pyvision_rl.distributed.mapping import hydra_overrides
from pyvision_rl.runs.config import dump_config

MAX_PROBLEMS = 10


def dry_run(config: DistributedConfig) -> tuple[list[str], bool]:
    """Lines for a person, and whether the data is good. ConfigError where verl, if it is installed,
    does not take the settings."""
    report = validate_file(config.data, image_root=config.image_root or None)
    overrides = hydra_overrides(config)
    if find_spec("verl"):
        from pyvision_rl.distributed.compose import compose_config

        compose_config(config)
        verdict = "verl takes them"
    else:
        verdict = "verl is not installed here: not checked"
    lines = [
        dump_config(config).rstrip(),
        "",
        *report.lines(MAX_PROBLEMS),
        "",
        f"settings of verl ({verdict}):",
        *(f"  {override}" for override in overrides),
    ]
    return lines, report.ok
