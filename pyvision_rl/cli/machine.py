"""The commands about this machine: sandbox, doctor."""

from __future__ import annotations

from pyvision_rl.cli.parse import missing_extra, parse_config
from pyvision_rl.errors import ConfigError


def sandbox(arguments: list[str]) -> int:
    """`sandbox probe | bench | serve | trace FILE`."""
    from pyvision_rl.console import say
    from pyvision_rl.sandbox.bench import BenchConfig, bench
    from pyvision_rl.sandbox.commands import probe, serve
    from pyvision_rl.sandbox.trace import trace

    match arguments:
        case ["probe"]:
            table, holds = probe()
            say(table)
            return 0 if holds else 1
        case ["bench", *rest]:
            say(bench(parse_config("sandbox bench", BenchConfig, rest)))
        case ["serve", *rest]:
            try:
                from pyvision_rl.sandbox.remote.server import ServeConfig
            except ModuleNotFoundError as error:
                raise missing_extra("sandbox serve", error) from error
            serve(parse_config("sandbox serve", ServeConfig, rest))
        case ["trace", file]:
            say(trace(file))
        case _:
            raise ConfigError("sandbox: there are probe, bench, serve and trace FILE")
    return 0


def doctor(arguments: list[str]) -> int:
    """What this machine offers a run, on one screen; exit code 1 where something is missing."""
    from pyvision_rl.console import say
    from pyvision_rl.preflight.doctor import examine

    if arguments:
        raise ConfigError(f"doctor: takes no arguments, got {' '.join(arguments)}")
    lines, ok = examine()
    for line in lines:
        say(line)
    return 0 if ok else 1
