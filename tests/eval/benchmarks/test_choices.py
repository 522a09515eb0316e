"""V* and HR-Bench: options, their order, cycles."""

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.hrbench import HRBENCH_4K, HRBENCH_8K
from pyvision_rl.eval.benchmarks.item import Response, read_items
from pyvision_rl.eval.benchmarks.options import by_letter, letter_in, option_in
from pyvision_rl.eval.benchmarks.scorers import LETTER, RULES
from pyvision_rl.eval.benchmarks.vstar import VSTAR
from tests.eval.benchmarks.files import (
    as_json,
    base64_png,
    item,
    jsonl,
    parquet,
    picture,
    png,
    scored,
    source,
    tsv,
    values,
)

COLOURS = ["The colour is red.", "The colour is blue.", "The colour is white.", "It is green."]


def vstar_folder(tmp_path, num=20):
    for at in range(num):
        kind = "direct_attributes" if at % 2 else "relative_position"
        picture(tmp_path / kind / f"sa_{at}.jpg")
        value = {
            "target_object": ["x"],
            "bbox": [],
            "question": f"Colour {at}?",
            "options": COLOURS,
        }
        as_json(tmp_path / kind / f"sa_{at}.json", value)
    return tmp_path


def test_vstar_json_has_the_right_option_first_so_it_is_shuffled(tmp_path):
    items = read_items(VSTAR, source(vstar_folder(tmp_path)))
    letters = {entry.task.answer for entry in items}
    assert letters == set("ABCD")
    assert all(entry.options[entry.task.answer] == COLOURS[0] for entry in items)
    assert all(f"{e.task.answer}. {COLOURS[0]}" in e.task.question for e in items)
    again = read_items(VSTAR, source(tmp_path))
    other = read_items(VSTAR, source(tmp_path, seed=1))
    assert again == items
    assert [entry.task.answer for entry in other] != [entry.task.answer for entry in items]


def test_vstar_in_file_order_is_always_a(tmp_path):
    items = read_items(VSTAR, source(vstar_folder(tmp_path), option_order="file"))
    assert {entry.task.answer for entry in items} == {"A"}


def test_the_original_vstar_folder_has_no_splits(tmp_path):
    with pytest.raises(InputError, match="folder has no splits, so no 'relative_position'"):
        read_items(VSTAR, source(vstar_folder(tmp_path, 2), split="relative_position"))


def test_vstar_questions_keep_their_order_and_ids_of_both_kinds(tmp_path):
    vstar_folder(tmp_path, 2)
    text = "What is the colour?\n(A) red\n(B) blue\nAnswer with the option's letter."
    row = {"text": text, "label": "B", "question_id": 0}
    rows = [
        {**row, "image": "direct_attributes/sa_1.jpg", "category": "direct_attributes"},
        {**row, "image": "relative_position/sa_0.jpg", "category": "relative_position"},
    ]
    jsonl(tmp_path / "test_questions.jsonl", rows)
    items = read_items(VSTAR, source(tmp_path))
    assert [entry.id for entry in items] == ["direct_attributes/0", "relative_position/0"]
    assert items[0].task.answer == "B"
    assert items[0].options == {"A": "red", "B": "blue"}
    assert items[0].task.images == (tmp_path / "direct_attributes" / "sa_1.jpg",)


def test_vstar_tables(tmp_path):
    row = {"index": 3, "question": "Q?", "A": "a", "B": "b", "answer": "B", "category": "k"}
    (from_tsv,) = read_items(
        VSTAR, source(tsv(tmp_path / "v.tsv", [{**row, "image": base64_png()}]))
    )
    assert (from_tsv.id, from_tsv.task.question) == ("3", "Q?\nA. a\nB. b")
    hf = {
        "image": {"bytes": png(), "path": None},
        "text": "Q? (A) a (B) b",
        "label": "A",
        "category": "k",
        "question_id": "9",
    }
    (from_hf,) = read_items(VSTAR, source(parquet(tmp_path / "t.parquet", [hf])))
    assert (from_hf.id, from_hf.task.answer, from_hf.options["B"]) == ("k/9", "A", "b")
    with pytest.raises(InputError, match="holds no options"):
        read_items(VSTAR, source(parquet(tmp_path / "t.parquet", [{**hf, "text": "Q?"}])))


def test_vstar_accuracy_is_over_items_not_over_kinds():
    kinds = ["direct_attributes"] * 3 + ["relative_position"]
    items = [item(str(n), labels={"category": kind}) for n, kind in enumerate(kinds)]
    grades = [(1.0, 0.0), (1.0, 1.0), (0.0, 0.0), (1.0, None)]
    found = values(VSTAR.metrics([scored(i, *g) for i, g in zip(items, grades, strict=True)]))
    # (0.5 + 1 + 0 + 1) / 4; the mean of the kinds would be 0.75
    assert found["accuracy"] == 0.625
    assert found["accuracy/direct_attributes"] == 0.5
    assert found["accuracy/relative_position"] == 1.0


def test_vstar_is_avg_at_32_nearly_greedy():
    assert (VSTAR.decoding.num_samples, VSTAR.decoding.temperature) == (32, 0.01)
    assert (HRBENCH_4K.decoding.temperature, HRBENCH_4K.decoding.top_k) == (0.5, 20)


def hr_items(num_questions, num_cycles=4):
    return [
        item("A", id=f"{q}-{c}", labels={"category": "single", "cycle": str(c)}, cluster=str(q))
        for q in range(num_questions)
        for c in range(num_cycles)
    ]


def test_hrbench_is_the_mean_over_cycles_not_all_rotations_right():
    # question 0 right in all rotations, question 1 in three
    grades = [1, 1, 1, 1, 1, 1, 1, 0]
    found = (
        VSTAR,
        HRBENCH_4K.metrics([scored(i, float(g)) for i, g in zip(hr_items(2), grades, strict=True)]),
    )
    numbers = values(found[1])
    assert numbers["accuracy"] == numbers["accuracy/single"] == 7 / 8
    assert numbers["accuracy/cycle/3"] == 0.5
    assert numbers["all_rotations_right"] == 0.5


def test_hrbench_weighs_cycles_equally_where_a_limit_cuts_them():
    items = hr_items(2)[:5]  # cycle 0 twice, the others once
    found = values(
        HRBENCH_4K.metrics([scored(i, g) for i, g in zip(items, (1, 0, 0, 0, 0.0), strict=True)])
    )
    assert found["accuracy"] == pytest.approx(0.5 / 4)
    assert found["all_rotations_right"] == 0.0


def test_a_folder_with_both_sizes_and_a_file_of_the_other(tmp_path):
    for size, count in (("4k", 1), ("8k", 2)):
        rows = [
            {"index": at, "question": size, "A": "1", "B": "2", "answer": "A"}
            | {"category": "single", "cycle_category": "0", "image": base64_png()}
            for at in range(count)
        ]
        tsv(tmp_path / f"hr_bench_{size}.tsv", rows)
    for benchmark, size in ((HRBENCH_4K, "4k"), (HRBENCH_8K, "8k")):
        questions = {i.task.question[:2] for i in read_items(benchmark, source(tmp_path))}
        assert questions == {size}
    assert len(read_items(HRBENCH_8K, source(tmp_path, limit=1))) == 1
    with pytest.raises(InputError, match=r"hr_bench_8k\.tsv: is of HR-Bench 8K, not 4K"):
        read_items(HRBENCH_4K, source(tmp_path / "hr_bench_8k.tsv"))


def test_rotations_of_a_question_share_a_cluster(tmp_path):
    row = {"question": "Q?", "A": "1", "B": "2", "answer": "A", "category": "cross"}
    rows = [
        {**row, "index": 0, "cycle_category": "0", "image": base64_png()},
        {**row, "index": 1, "cycle_category": "1", "image": "0"},
        {**row, "index": 2, "cycle_category": "0", "image": base64_png("blue")},
    ]
    items = read_items(HRBENCH_4K, source(tsv(tmp_path / "h.tsv", rows)))
    assert items[0].cluster == items[1].cluster != items[2].cluster
    assert items[0].task.images == items[1].task.images


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(c)", "C"),
        ("D.", "D"),
        ("The answer is B", "B"),
        ("Answer: (A). It is red", "A"),
        ("Option A looks right, but the answer is C.", "C"),
        ("B: the blue one", "B"),
        ("I think that it is the D one", "D"),
        ("A man walks", None),
        ("either A or B", None),
        ("", None),
        ("E", None),
        # An article is no option, whatever word comes before it.
        ("The answer is a blue bag", None),
        ("The answer is a blue car, so B.", "B"),
        ("I would say that it is option C", "C"),
        ("The answer is A because it is red", "A"),
        ("the answer is (c).", "C"),
        ("answer: b", "B"),
        ("Comparing option A and option B, the correct one is C.", "C"),
        (r"Option A is wrong; the answer is $\boxed{B}$", "B"),
        (r"Option A is wrong: \boxed{\text{B}}.", "B"),
        ("**Answer:** D", "D"),
        ("The answer is 'B'.", "B"),
        ("It must be 'B'", "B"),
        ("'b'", "B"),
        ("[B]", "B"),
        ("I'm sure that it isn't A's car but D", "D"),
    ],
)
def test_the_letter_of_a_free_text(text, letter):
    assert letter_in(text, "ABCD") == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Blue", "B"),
        ("It is blue.", "B"),
        ("light blue", "C"),  # that option's words, not B's in it
        ("It is red or blue", None),
        ("A", "A"),
        ("bluer", None),
        ("The car that stands in the lower left corner of the photo is blue", None),
    ],
)
def test_the_words_of_an_option(text, letter):
    assert option_in(text, {"A": "red", "B": "blue", "C": "light blue"}) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("point C", "A"),
        ("It must be point C.", "A"),
        ("C", "C"),
        ("C. point E", "C"),
        ("The answer is C, as point C is nearer", "C"),
        ("It must be B", "B"),
    ],
)
def test_letters_among_the_words_of_an_option(text, letter):
    options = {"A": "point C", "B": "point D", "C": "point E"}
    assert option_in(text, options) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("It is 7.", "A"),
        ("x = 7.5 cm", "B"),
        ("7.25", None),
        ("It is -7", None),
        ("7/8", None),
        ("17", None),
    ],
)
def test_numbers_among_options(text, letter):
    assert option_in(text, {"A": "7", "B": "7.5", "C": "No correct answer"}) == letter


def test_an_option_letter_inside_a_word_is_not_an_answer():
    gold = item("A", options={"A": "red", "B": "blue"})
    assert LETTER.grade(gold, Response("Blue", "Blue")) == 0
    assert RULES.grade(gold, Response("red", "red")) == 1
    # Without an answer block only the lenient scorer looks at the text.
    assert LETTER.grade(gold, Response(None, "So the answer is A.")) == 1
    assert RULES.grade(gold, Response(None, "So the answer is A.")) == 0


def test_a_program_without_an_answer_names_no_option():
    gold = item("A", options={"A": "red", "B": "blue"})
    program = "Let me look.\n<code>\n```python\nA = image_clue_0.crop(box)\n```\n</code>"
    assert LETTER.grade(gold, Response(None, program)) == 0
    assert LETTER.grade(gold, Response(None, program.removesuffix("</code>"))) == 0
    assert LETTER.grade(gold, Response(None, f"{program}\nThe answer is A.")) == 1


def test_letters_that_options_bring_along():
    assert by_letter(["A. 1", "B. 2"]) == {"A": "1", "B": "2"}
    assert by_letter(["A. Smith", "C. Jones"]) == {"A": "A. Smith", "B": "C. Jones"}
