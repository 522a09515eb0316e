"""The files that `--config` names: what is wrong with one, in a line that names it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from pyvision_rl.errors import ConfigError

KINDS = {yaml.SequenceNode: "a list", yaml.ScalarNode: "a single word"}


def config_files(arguments: Sequence[str]) -> list[Path]:
    """The files that are there, in order; the others are the parser's to complain of."""
    files = []
    for argument, following in pairwise([*arguments, ""]):
        name, _, value = argument.partition("=")
        if name == "--config" and Path(value or following).is_file():
            files.append(Path(value or following))
    return files


def check_file(file: Path) -> None:
    """Raise ConfigError unless a file is YAML that holds keys, each of them once: of two values of
    a key, parsers take the last and say nothing.
    """
    try:
        tree = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: {_complaint(error)}") from error
    if not isinstance(tree, yaml.MappingNode):
        kind = KINDS.get(type(tree), "nothing")
        raise ConfigError(f"{file}: must hold keys and values, holds {kind}")
    _check_keys(file, tree)


def _complaint(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}: " if mark else ""
    return f"{place}not readable as YAML: {' '.join(what.split())}"


def _check_keys(file: Path, tree: yaml.MappingNode) -> None:
    open_nodes: list[yaml.Node] = [tree]
    seen: set[int] = set()
    while open_nodes:
        node = open_nodes.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            open_nodes += node.value
            continue
        keys: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in keys:
                line = key.start_mark.line + 1
                raise ConfigError(f"{file}: line {line}: {name} is there twice")
            keys.add(name)
            open_nodes.append(value)
