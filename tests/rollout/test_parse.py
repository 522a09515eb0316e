import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_rl.rollout.parse import Action, parse_action, unwrap_answer

CODE = "<code>\n```python\nprint(1)\n```\n</code>"


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("Seven.\n<answer>\n\\boxed{7}\n</answer>", Action(answer="7")),
        (CODE, Action(code="print(1)\n")),
        ("<code>```python\nprint(1)\n```</code>", Action(code="print(1)\n")),
        ("```python\nprint(1)\n```", Action(code="print(1)\n")),
        ("```py \nprint(1)\n```", Action(code="print(1)\n")),
        ("<code>```py\t\nprint(1)\n```</code>", Action(code="print(1)\n")),
        ("nothing to do", Action()),
        ("", Action()),
        # the last of several counts
        ("<answer>1</answer> no, <answer>2</answer>", Action(answer="2")),
        (CODE + CODE.replace("1", "2"), Action(code="print(2)\n")),
        # an answer is taken before code, wherever it stands
        ("<answer>7</answer>" + CODE, Action(answer="7")),
        # empty answers fall through
        ("<answer></answer>" + CODE, Action(code="print(1)\n")),
        ("<answer> \\boxed{} </answer>", Action()),
        ("<answer>1</answer><answer>\\boxed{ }</answer>", Action(answer="1")),
        # unclosed or nested blocks
        ("<answer>7", Action()),
        ("<answer>so <answer>7</answer>", Action(answer="7")),
        ("<code>\n```python\nprint(1)\n", Action()),
        ("<code>\n```python\nx\n<code>\n```python\ny\n```\n</code>", Action(code="y\n")),
        # without the language word only the tag makes it a program
        ("<code>\n```\nprint(1)\n```\n</code>", Action(code="print(1)\n")),
        ("```\nprint(1)\n```", Action()),
        # a program that prints the tags is a program
        ("<code>\n```python\nprint('```')\n```\n</code>", Action(code="print('```')\n")),
    ],
)
def test_what_a_completion_asks_for(text, action):
    assert parse_action(text) == action


@pytest.mark.parametrize(
    ("block", "answer"),
    [
        ("\n\\boxed{7}\n", "7"),
        (" 7 ", "7"),
        ("\\boxed{'blue'}", "blue"),
        ("\\boxed{' blue '}", "blue"),
        ('\\boxed{"blue"}', "blue"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} or \\boxed{2}", "2"),
        ("\\boxed{unclosed", "unclosed"),
        ("the answer is \\boxed{B}.", "B"),
        ("'", "'"),
        ("it's John's", "it's John's"),
    ],
)
def test_the_box_and_its_quotes_are_taken_off(block, answer):
    assert unwrap_answer(block) == answer


@given(st.text(alphabet="<answer>/code`\\boxed{}python\n 'x", max_size=200))
def test_any_text_parses_to_at_most_one_action(text):
    action = parse_action(text)
    assert action.answer is None or action.code is None
    assert action.answer != ""


@pytest.mark.parametrize("piece", ["<answer>", "<code>```python\n ", "```", "\\boxed{", "{"])
def test_long_hostile_text_holds_no_answer(piece):
    # 200,000 characters: a pattern that backtracks would not come back
    assert parse_action(piece * (200_000 // len(piece))).answer is None
