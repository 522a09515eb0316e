"""The command line: `pyvision-rl COMMAND --config FILE [--key value ...]`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pyvision_rl import __version__
from pyvision_rl.cli.data import data
from pyvision_rl.cli.evaluation import compare, evaluate, serve
from pyvision_rl.cli.machine import doctor, sandbox
from pyvision_rl.cli.parse import PROG
from pyvision_rl.cli.training import ablate, quickstart, rl, sft
from pyvision_rl.cli.watching import play, view
from pyvision_rl.errors import ConfigError, PyVisionError


@dataclass(frozen=True)
class Command:
    """A subcommand; `run` imports what it needs, so that help stays fast."""

    run: Callable[[list[str]], int]
    help: str
    needs_torch: bool = True


COMMANDS = {
    "quickstart": Command(quickstart, "[video] the whole pipeline in minutes, on a CPU"),
    "sft": Command(sft, "supervised fine-tuning on traces"),
    "rl": Command(rl, "reinforcement learning; goes on where the run folder stands"),
    "eval": Command(evaluate, "accuracy on a task file or a published benchmark"),
    "compare": Command(compare, "finished benchmark runs, item by item, with paired tests"),
    "serve": Command(serve, "the agent behind OpenAI's chat interface"),
    "sandbox": Command(sandbox, "probe, bench, serve or trace FILE: where programs run", False),
    "data": Command(data, "validate FILE, synthesize traces, export-llamafactory", False),
    "play": Command(play, "ask an agent about an image or a video of your own"),
    "ablate": Command(ablate, "arms and seeds of the RL stage in one table, with figures"),
    "doctor": Command(doctor, "what this machine offers a run: versions, devices, sandbox, disk"),
    "view": Command(view, "a local web page over runs: curves, groups, trajectories", False),
}


def usage() -> str:
    """The commands, a line each."""
    lines = [f"usage: {PROG} COMMAND [--config FILE] [--key value ...]", ""]
    lines += [f"  {name:<12}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            *lines,
            "",
            f"{PROG} COMMAND --help lists the keys of a command. --dry-run: quickstart, sft, rl,",
            "eval, ablate, data synthesize and serve say what they would do, and do nothing.",
        ]
    )


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
