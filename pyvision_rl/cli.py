"""The command line: `pyvision-rl COMMAND --config FILE [--key value ...]`."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pyvision_rl import __version__
from pyvision_rl.errors import ConfigError, PyVisionError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from pyvision_rl.preflight.options import DryRunConfig
    from pyvision_rl.preflight.plan import StageConfig

    ConfigT = TypeVar("ConfigT", bound=DataclassInstance)

PROG = "pyvision-rl"


@dataclass(frozen=True)
class Command:
    """A subcommand; `run` imports what it needs, so that help stays fast."""

    run: Callable[[list[str]], int]
    help: str
    needs_torch: bool = True


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

    parser = ArgumentParser(
        prog=f"{PROG} {command}", exit_on_error=False, description=config_type.__doc__
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these keys")
    if positional:
        parser.add_argument(positional, nargs="+", help="one or more")
    parser.add_class_arguments(config_type, None, sub_configs=True, skip={positional})
    try:
        parsed = vars(parser.instantiate(parser.parse_args([*defaults, *arguments])))
    except argparse.ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return config_type(**{key: value for key, value in parsed.items() if key != "config"})


def is_dry_run(command: str, config: StageConfig, options: DryRunConfig) -> bool:
    """Whether only a dry run was asked for; it is done then. ConfigError where it finds a fault."""
    if not options.dry_run:
        return False
    from pyvision_rl.console import say
    from pyvision_rl.preflight.dry_run import dry_run

    found = dry_run(config, options.memory_gb)
    for line in found.lines:
        say(line)
    if not found.ok:
        raise ConfigError(f"{command}: this would not run as it is; see above")
    return True


def split_dry_run(arguments: list[str]) -> tuple[DryRunConfig, list[str]]:
    """The options of a dry run, and the other arguments."""
    from pyvision_rl.preflight.options import DryRunConfig

    names = ("--dry_run", "--memory_gb")
    mine: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in names:
            mine += [word, *itertools.islice(words, 1)]
        else:
            (mine if word.startswith(tuple(f"{name}=" for name in names)) else others).append(word)
    return parse_config("dry_run", DryRunConfig, mine), others


def quickstart(arguments: list[str]) -> int:
    """Data, cold start, RL and evaluation of the embedded default."""
    from importlib import resources

    from pyvision_rl.quickstart import QuickstartConfig, run_quickstart

    shipped = resources.files("pyvision_rl.configs") / "quickstart.yaml"
    with resources.as_file(shipped) as path:
        config = parse_config("quickstart", QuickstartConfig, arguments, ["--config", str(path)])
    asyncio.run(run_quickstart(config))
    return 0


def sft(arguments: list[str]) -> int:
    """Supervised fine-tuning on traces."""
    from pyvision_rl.console import say, stage
    from pyvision_rl.sft.stage import SFTConfig, run_sft

    options, arguments = split_dry_run(arguments)
    config = parse_config("sft", SFTConfig, arguments)
    if is_dry_run("sft", config, options):
        return 0
    with stage("SFT") as bar:
        checkpoint = run_sft(config, bar.step)
    say(f"checkpoint  {checkpoint}")
    return 0


def rl(arguments: list[str]) -> int:
    """Reinforcement learning; goes on where the run folder stands."""
    from pyvision_rl.console import say, stage
    from pyvision_rl.rl.config import RLConfig
    from pyvision_rl.rl.train import train

    options, arguments = split_dry_run(arguments)
    config = parse_config("rl", RLConfig, arguments)
    if is_dry_run("rl", config, options):
        return 0
    with stage("RL") as bar:
        checkpoint = asyncio.run(
            train(config, lambda step, metrics: bar.step(step, config.num_steps, metrics))
        )
    say(f"checkpoint  {checkpoint}")
    return 0


def evaluate(arguments: list[str]) -> int:
    """Accuracy of a checkpoint on a task file, or on a published benchmark."""
    if names_key("benchmark", arguments):
        return benchmark(arguments)
    from pyvision_rl.console import console, report_table, say, stage
    from pyvision_rl.eval.stage import EvalConfig, run_eval

    options, arguments = split_dry_run(arguments)
    config = parse_config("eval", EvalConfig, arguments)
    if is_dry_run("eval", config, options):
        return 0
    with stage("evaluation") as bar:
        report = asyncio.run(run_eval(config, bar.advance))
    console.print(report_table(config.data, [(config.policy.model, report)]))
    say(f"summary  {config.out}/summary.json")
    return 0


def view(arguments: list[str]) -> int:
    """A local web page over runs."""
    from pyvision_rl.console import say
    from pyvision_rl.viewer.serve import ViewConfig, run_view

    run_view(parse_config("view", ViewConfig, arguments, positional="runs"), say)
    return 0


def play(arguments: list[str]) -> int:
    """An agent asked about one's own image or video."""
    from pyvision_rl.console import console, say
    from pyvision_rl.viewer.play import PlayConfig, play_page, run_defaults
    from pyvision_rl.viewer.play import play as ask
    from pyvision_rl.viewer.terminal import TerminalWatcher

    model = parse_config("play", PlayConfig, arguments).model
    config = parse_config("play", PlayConfig, arguments, run_defaults(model))
    if config.page:
        asyncio.run(play_page(config, say))
    else:
        asyncio.run(ask(config, TerminalWatcher(console, config.figures)))
    return 0


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
                from pyvision_rl.sandbox.server import ServeConfig
            except ModuleNotFoundError as error:
                raise missing_extra("sandbox serve", error) from error
            serve(parse_config("sandbox serve", ServeConfig, rest))
        case ["trace", file]:
            say(trace(file))
        case _:
            raise ConfigError("sandbox: there are probe, bench, serve and trace FILE")
    return 0


def missing_extra(command: str, error: ModuleNotFoundError) -> ConfigError:
    """What to install for a command that talks HTTP."""
    return ConfigError(f"{command} needs {error.name}: pip install 'pyvision-rl[server]'")


def names_key(key: str, arguments: list[str]) -> bool:
    """Whether the arguments, or a readable YAML file that they name, set a key."""
    import yaml

    files = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = argument.partition("=")
        if name == f"--{key}":
            return True
        if name == "--config" and Path(value or following).is_file():
            files.append(Path(value or following))
    try:
        held = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return any(isinstance(tree, dict) and key in tree for tree in held)


def benchmark(arguments: list[str]) -> int:
    """A published benchmark, or with `--tool both` what the tool is worth on it."""
    from pyvision_rl.console import say, stage
    from pyvision_rl.eval.benchmark_stage import BenchmarkConfig, run_benchmark
    from pyvision_rl.eval.tool_ablation import ablate_tool

    config = parse_config("eval", BenchmarkConfig, arguments)
    with stage(config.benchmark) as bar:
        if config.tool == "both":
            plain, helped, pair = asyncio.run(ablate_tool(config, bar.advance))
            lines = [*plain.lines(), "", *helped.lines(), "", pair.line()]
        else:
            lines = asyncio.run(run_benchmark(config, bar.advance)).lines()
    for line in lines:
        say(line)
    say(f"written  {config.out}")
    return 0


def compare(arguments: list[str]) -> int:
    """Finished benchmark runs, compared item by item."""
    from pyvision_rl.console import say
    from pyvision_rl.eval.compare import CompareConfig, compare_runs

    config = parse_config("compare", CompareConfig, arguments, positional="runs")
    for pair in compare_runs(config):
        say(pair.line())
    say(f"figure  {config.out}")
    return 0


def serve(arguments: list[str]) -> int:
    """The agent behind OpenAI's chat interface."""
    try:
        from pyvision_rl.serve.stage import ServeConfig, run_serve
    except ModuleNotFoundError as error:
        raise missing_extra("serve", error) from error

    asyncio.run(run_serve(parse_config("serve", ServeConfig, arguments)))
    return 0


def ablate(arguments: list[str]) -> int:
    """Arms and seeds of the RL stage, in one table; goes on where the folder stands."""
    from pyvision_rl.ablate.config import AblateConfig
    from pyvision_rl.ablate.run import run_ablations
    from pyvision_rl.console import say, stage

    config = parse_config("ablate", AblateConfig, arguments)
    with stage("ablations") as bar:

        def on_step(title: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
            if step == 1:
                say(title)
            bar.step(step, total, metrics)

        table = asyncio.run(run_ablations(config, on_step))
    say(table.read_text())
    say(f"table    {table}")
    say(f"figures  {table.parent / 'figures'}")
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


COMMANDS = {
    "quickstart": Command(quickstart, "data, cold start, RL and evaluation in minutes, on a CPU"),
    "sft": Command(sft, "supervised fine-tuning on traces"),
    "rl": Command(rl, "reinforcement learning; goes on where the run folder stands"),
    "eval": Command(evaluate, "accuracy on a task file or a published benchmark"),
    "compare": Command(compare, "finished benchmark runs, item by item, with paired tests"),
    "serve": Command(serve, "the agent behind OpenAI's chat interface"),
    "sandbox": Command(sandbox, "probe, bench, serve or trace FILE: where programs run", False),
    "data": Command(data, "validate FILE: every problem of a task or trace file"),
    "play": Command(play, "ask an agent about an image or a video of your own"),
    "ablate": Command(ablate, "arms and seeds of the RL stage in one table, with figures"),
    "doctor": Command(doctor, "what this machine offers a run: versions, devices, sandbox, disk"),
    "view": Command(view, "a local web page over runs: curves, groups, trajectories", False),
}


def usage() -> str:
    """The commands, a line each."""
    lines = [f"usage: {PROG} COMMAND [--config FILE] [--key value ...]", ""]
    lines += [f"  {name:<12}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", f"{PROG} COMMAND --help lists the keys of a command."])


def prepare_torch() -> None:
    """No bars but ours, and no more threads than leave room for the sandbox."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))


def prepare_logging() -> None:
    """Our own lines only, above the bar."""
    from pyvision_rl.console import ConsoleHandler

    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger("pyvision_rl").setLevel(logging.INFO)


def main() -> int:
    """Entry point; 0 on success, 2 for input that cannot be used, each with one line that says why.

    A failing sandbox or selection, which is no fault of the input, ends with 1.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage() + "\n")
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"{PROG} {__version__}\n")
        return 0
    try:
        if arguments[0] not in COMMANDS:
            raise ConfigError(f"no command {arguments[0]!r}; there are {', '.join(COMMANDS)}")
        command = COMMANDS[arguments[0]]
        prepare_logging()
        if command.needs_torch:
            prepare_torch()
        return command.run(arguments[1:])
    except PyVisionError as error:
        sys.stderr.write(f"{PROG}: {error}\n")
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{PROG}: stopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
