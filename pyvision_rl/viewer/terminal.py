"""An episode in the terminal: text, highlighted programs, output, figures as coloured blocks."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from pyvision_rl.rollout.episode import Opening
from pyvision_rl.types import Trajectory, Turn
from pyvision_rl.viewer.turns import Result, TurnView, store_turn, view_turn

_BLOCK_COLUMNS = 56
_CONTROLS = dict.fromkeys(
    [*range(9), 11, 12, *range(14, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}"
)
"""Characters that would steer the terminal."""


class TerminalWatcher:
    """Prints an episode as it goes on; figures go to `folder` too unless it is empty."""

    def __init__(self, console: Console, folder: str) -> None:
        self.console = console
        self.folder = Path(folder) if folder else None
        self.num_images = 0

    def on_opening(self, opening: Opening) -> None:
        """The question and what it is about."""
        self.num_images = len(opening.images)
        self.console.print(Text(_harmless(opening.task.question), style="bold"))
        for k, image in enumerate(opening.images):
            self._say(f"image_clue_{k}: {image.width} x {image.height}")
        for k, path in enumerate(opening.task.videos):
            self._say(f"video_clue_{k}: {path}")

    def on_turn(self, place: int, turn: Turn) -> None:
        """One turn, whole."""
        count = len(turn.observation.images) if turn.observation else 0
        names = tuple(f"image_clue_{self.num_images + place}" for place in range(count))
        view = view_turn(store_turn(turn, names), self.num_images)
        self.console.print(Rule(Text(f"turn {place + 1}"), align="left", style="dim"))
        self._show_segments(view)
        if view.result and turn.observation:
            self._show_result(view.result, turn.observation.images)
        elif view.has_code:
            self._say("the program was not run, or its result not taken")

    def on_end(self, trajectory: Trajectory) -> None:
        """How it ended."""
        calls = trajectory.num_tool_calls
        self.console.print(Rule(style="dim"))
        answer = "no answer" if trajectory.answer is None else f"answer: {trajectory.answer}"
        style = "bold green" if trajectory.answer else "bold red"
        self.console.print(Text(_harmless(answer), style=style))
        self._say(f"{trajectory.stop.value}, {len(trajectory.turns)} turns, {calls} calls")

    def _show_segments(self, view: TurnView) -> None:
        for segment in view.segments:
            text = _harmless("".join(piece for _, piece in segment.pieces))
            if segment.kind == "code":
                code = Syntax(text, "python", theme="ansi_dark", background_color="default")
                self.console.print(Padding(code, (0, 2)))
            else:
                self.console.print(Text(text, style="green" if segment.kind == "answer" else ""))

    def _show_result(self, result: Result, images: tuple[Image.Image, ...]) -> None:
        for text, style in ((result.output, "cyan"), (result.traceback, "red")):
            if text:
                self.console.print(Padding(Text(_harmless(text), style=style), (0, 4)))
        self.num_images += len(images)
        for name, image in zip(result.figures, images, strict=True):
            where = ""
            if self.folder:
                self.folder.mkdir(parents=True, exist_ok=True)
                image.save(self.folder / f"{name}.png")
                where = f", saved as {self.folder / name}.png"
            if self.console.is_terminal:
                self.console.print(Padding(blocks(image), (0, 4)))
            self._say(f"    {name}: {image.width} x {image.height}{where}")

    def _say(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))


def _harmless(text: str) -> str:
    return text.translate(_CONTROLS)


def blocks(image: Image.Image, columns: int = _BLOCK_COLUMNS) -> Text:
    """An image as half blocks, two pixels a character."""
    width = min(columns, image.width)
    rows = max(1, round(image.height * width / image.width / 2))
    small = image.convert("RGB").resize((width, rows * 2))
    text = Text()
    for row in range(rows):
        for column in range(width):
            upper, lower = (_colour(small, column, 2 * row + half) for half in (0, 1))
            text.append("▀", Style(color=upper, bgcolor=lower))
        text.append("\n")
    return text


def _colour(image: Image.Image, column: int, row: int) -> str:
    red, green, blue = image.crop((column, row, column + 1, row + 1)).tobytes()
    return f"#{red:02x}{green:02x}{blue:02x}"
