"""The commands that show what an agent does: view, play."""

from __future__ import annotations

import asyncio

from pyvision_rl.cli.parse import parse_config


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
