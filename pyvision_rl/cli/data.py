"""The command that checks and makes data."""

from __future__ import annotations

import asyncio

from pyvision_rl.cli.parse import parse_config, show_dry_run, split_dry_run
from pyvision_rl.errors import ConfigError


def data(arguments: list[str]) -> int:
    """`data validate FILE | export-llamafactory | synthesize`."""
    match arguments:
        case ["validate", file, *rest]:
            return validate(file, rest)
        case ["export-llamafactory", *rest]:
            return export_llamafactory(rest)
        case ["synthesize", *rest]:
            return synthesize(rest)
        case _:
            raise ConfigError("data: there are validate FILE, synthesize and export-llamafactory")


def validate(file: str, arguments: list[str]) -> int:
    """Every problem of a task or trace file; exit code 1 if there is one."""
    from pyvision_rl.console import say
    from pyvision_rl.data.validate import ValidateConfig, validate_file

    config = parse_config("data validate FILE", ValidateConfig, arguments)
    report = validate_file(file, image_root=config.image_root or None, decode=config.decode)
    for line in report.lines():
        say(line)
    return 0 if report.ok else 1


def export_llamafactory(arguments: list[str]) -> int:
    """Traces as a folder that LLaMA-Factory trains from."""
    from pyvision_rl.console import say
    from pyvision_rl.sft import llamafactory

    config = parse_config("data export-llamafactory", llamafactory.ExportConfig, arguments)
    for line in llamafactory.export_llamafactory(config).lines():
        say(line)
    return 0


def synthesize(arguments: list[str]) -> int:
    """Traces from a teacher behind a server; goes on where the folder stands."""
    from pyvision_rl.console import say, stage
    from pyvision_rl.sft.synthesize import SynthesizeConfig, run_synthesize

    options, arguments = split_dry_run(arguments)
    config = parse_config("data synthesize", SynthesizeConfig, arguments)
    if options.dry_run:
        from pyvision_rl.preflight.dry_synthesize import dry_run_synthesize

        return show_dry_run("data synthesize", dry_run_synthesize(config))
    with stage("synthesis") as bar:
        result = asyncio.run(run_synthesize(config, bar.advance))
    for line in result.lines():
        say(line)
    return 0
