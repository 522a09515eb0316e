"""Arguments into configurations: files, overrides, and the options that stages share."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pyvision_rl.cli.files import check_file, config_files
from pyvision_rl.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from jsonargparse import ArgumentParser

    from pyvision_rl.preflight.dry_run import DryRun
    from pyvision_rl.preflight.options import DryRunConfig
    from pyvision_rl.preflight.plan import StageConfig

    ConfigT = TypeVar("ConfigT", bound=DataclassInstance)

PROG = "pyvision-rl"
TRUTH = ("true", "false", "yes", "no")


def parse_config(
    command: str,
    config_type: type[ConfigT],
    arguments: list[str],
    defaults: Sequence[str] = (),
    positional: str = "",
) -> ConfigT:
    """A command's configuration from files and overrides; ConfigError says what is wrong with it.

    `defaults` are arguments that go before the user's, such as shipped configuration files.
    `positional` names the key that takes the words without a dash in front, at least one.
    """
    from jsonargparse import ArgumentParser

    files = config_files(arguments)
    for file in files:
        check_file(file)
    parser = ArgumentParser(
        prog=f"{PROG} {command}", exit_on_error=False, description=config_type.__doc__
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these keys")
    if positional:
        parser.add_argument(positional, nargs="+", help="one or more")
    parser.add_class_arguments(config_type, None, sub_configs=True, skip={positional})
    try:
        parsed = _parse(parser, [*defaults, *arguments])
    except ConfigError as error:
        raise _with_file(error, parser, defaults, files) from error
    for key in ("data", "out"):
        if parsed.get(key) == "":
            raise ConfigError(f"{key}: is empty; name a {'file' if key == 'data' else 'folder'}")
    return config_type(**{key: value for key, value in parsed.items() if key != "config"})


def _parse(parser: ArgumentParser, arguments: list[str]) -> dict[str, object]:
    try:
        return vars(parser.instantiate(parser.parse_args(arguments)))
    except argparse.ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"a file of --config is no UTF-8 text: {error}") from error


def _with_file(
    error: ConfigError, parser: ArgumentParser, defaults: Sequence[str], files: Sequence[Path]
) -> ConfigError:
    """The error with the first file in front that has it without the others, if there is one."""
    for file in files:
        try:
            _parse(parser, [*defaults, "--config", str(file)])
        except ConfigError as alone:
            if str(alone) == str(error):
                return ConfigError(f"{file}: {error}")
    return error


def names_key(key: str, arguments: list[str]) -> bool:
    """Whether the arguments, or a readable YAML file that they name, set a key."""
    import yaml

    if any(argument.partition("=")[0] == f"--{key}" for argument in arguments):
        return True
    files = config_files(arguments)
    try:
        held = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return any(isinstance(tree, dict) and key in tree for tree in held)


def split_dry_run(arguments: list[str]) -> tuple[DryRunConfig, list[str]]:
    """The options of a dry run, and the other arguments: `--dry-run`, `--dry_run true` ..."""
    from pyvision_rl.preflight.options import DryRunConfig

    mine: list[str] = []
    others: list[str] = []
    words = deque(arguments)
    while words:
        word = words.popleft()
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if name not in ("__dry_run", "__memory_gb"):
            others.append(word)
            continue
        if not equals:
            is_value = words and (name == "__memory_gb" or words[0].lower() in TRUTH)
            value = words.popleft() if is_value else "true"
        mine.append(f"--{name[2:]}={value}")
    return parse_config("dry_run", DryRunConfig, mine), others


def is_dry_run(command: str, config: StageConfig, options: DryRunConfig) -> bool:
    """Whether only a dry run was asked for; it is done then. ConfigError where it finds a fault."""
    if not options.dry_run:
        return False
    from pyvision_rl.preflight.dry_run import dry_run

    show_dry_run(command, dry_run(config, options.memory_gb))
    return True


def show_dry_run(command: str, found: DryRun) -> int:
    """Say what a dry run found. ConfigError where it is a fault."""
    from pyvision_rl.console import say

    for line in found.lines:
        say(line)
    if not found.ok:
        raise ConfigError(f"{command}: this would not run as it is; see above")
    return 0


def missing_extra(command: str, error: ModuleNotFoundError, extra: str = "server") -> ConfigError:
    """What to install for a command that needs more than the base."""
    return ConfigError(f"{command} needs {error.name}: pip install 'pyvision-rl[{extra}]'")
