"""Completions and observations cut into what a person reads."""

import pytest

from pyvision_rl.model.codec import observation_text
from pyvision_rl.runs.schema import StoredObservation, StoredTurn
from pyvision_rl.viewer.highlight import highlight
from pyvision_rl.viewer.turns import Result, view_turn, view_turns

CODE = 'print("hi")  # greet\n'


def turn(text: str, code: str | None = None, seen: StoredObservation | None = None) -> StoredTurn:
    return StoredTurn(text, (1, 2), (-0.1, -0.2), "stop", code, seen)


def seen(output: str, *images: str, ok: bool = True, first: int = 1) -> StoredObservation:
    text = observation_text(output, len(images), first)
    return StoredObservation(text, (1, 2, 3), images, len(images), ok)


def result_of(observation: StoredObservation, first_figure: int = 0) -> Result:
    result = view_turn(turn("x", CODE, observation), first_figure).result
    assert result is not None
    return result


def parts(text: str, code: str | None = None) -> list[tuple[str, str]]:
    segments = view_turn(turn(text, code), 0).segments
    return [(s.kind, "".join(piece for _, piece in s.pieces)) for s in segments]


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        (
            f"I look.\n<code>\n```python\n{CODE}```\n</code>",
            CODE,
            [("text", "I look."), ("code", CODE.rstrip())],
        ),
        (f"```py\n{CODE}```\nand then", CODE, [("code", CODE.rstrip()), ("text", "and then")]),
        ("<answer>\n\\boxed{7}\n</answer>", None, [("answer", "7")]),
        ("So <answer>7</answer>!", None, [("text", "So "), ("answer", "7"), ("text", "!")]),
        ("<code>\n```python\nprint(", None, [("text", "<code>\n```python\nprint(")]),
        ("", None, []),
        ("changed", CODE, [("text", "changed")]),
    ],
)
def test_completion(text, code, expected):
    assert parts(text, code) == expected


@pytest.mark.parametrize("output", ["", "7", "a\nb", "</interpreter>", "\nImage Result:\nx"])
@pytest.mark.parametrize("images", [(), ("s1",), ("s1", "s2")])
def test_the_frame_of_an_observation_is_taken_off(output, images):
    """As the codec writes it, whatever is inside."""
    result = result_of(seen(output, *images), 1)
    assert result.output == output.strip("\n")
    assert result.figures == images


def test_output_and_traceback_of_a_failed_cell():
    text = "before\nTraceback (most recent call last):\n  File 1\nValueError: no"
    result = result_of(seen(text, ok=False))
    assert result.output == "before"
    assert result.traceback.startswith("Traceback")
    printed = result_of(seen(text, ok=True))
    assert printed.traceback == ""


def first_figures(*turns: StoredTurn) -> list[int | None]:
    views = view_turns(turns, num_given=2)
    return [view.result.first_figure if view.result else None for view in views]


def test_figures_have_the_names_that_the_policy_saw():
    """Frames of a video in the prompt come before them."""
    first = turn("x", CODE, seen("<image_clue_3>\nImage Result:\n<image_clue_9>", "a", first=18))
    assert first_figures(first, turn("x", CODE, seen("", "b", first=19))) == [18, 19]


def test_figures_without_names_are_numbered_through():
    bare = StoredObservation("shown", (1,), ("a", "b"), 2, True)
    assert first_figures(turn("x", CODE, bare), turn("x"), turn("x", CODE, bare)) == [2, None, 4]


@pytest.mark.parametrize("code", [CODE, "x = 1", "def f(", "\n\n x\t\r\n", "<b>'''", "\u2028", ""])
def test_highlighting_loses_nothing(code):
    assert "".join(text for _, text in highlight(code)) == code.replace("\r\n", "\n")


def test_highlighting_names_styles():
    assert ("string", '"hi"') in highlight(CODE)
    assert ("comment", "# greet") in highlight(CODE)
