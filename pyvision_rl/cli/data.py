"""The command that checks and makes data."""

from __future__ import annotations

from pyvision_rl.cli.parse import parse_config
from pyvision_rl.errors import ConfigError


def data(arguments: list[str]) -> int:
    """`data validate FILE`: every problem of a task or trace file; exit code 1 if there is one."""
    from pyvision_rl.console import say
    from pyvision_rl.data.validate import ValidateConfig, validate_file

    if len(arguments) < 2 or arguments[0] != "validate":
        raise ConfigError("data: there is `data validate FILE [--image_root DIR] [--decode true]`")
    config = parse_config("data validate FILE", ValidateConfig, arguments[2:])
    report = validate_file(arguments[1], image_root=config.image_root or None, decode=config.decode)
    for line in report.lines():
        say(line)
    return 0 if report.ok else 1
