"""Published verdicts: MathVision's scorer on 3,040 answers of Gemini."""

import json
from pathlib import Path

import pytest

from pyvision_rl.reward.rules import grade_answer

MATHVISION = Path(__file__).parents[3] / "shared" / "data" / "mathvision"
OFFICIAL_MISTAKES = {
    "2199": "(15 + 2 sqrt 3) / 64 taken for sqrt 3 / 6",
    "2825": "(sqrt 3 / 49)^6 taken for 7^3 / (2^12 13^2)",
}


@pytest.mark.skipif(not MATHVISION.exists(), reason="no ../shared/data beside the repository")
def test_mathvision_verdicts() -> None:
    lines = (MATHVISION / "test_answers.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    published = (MATHVISION / "official_outputs" / "Gemini-Pro-CoT.jsonl").read_text()
    differ, num_right = set(), 0
    for verdict in map(json.loads, published.splitlines()):
        row = rows[verdict["id"]]
        options: dict[str, str] = dict(zip("ABCDE", row["options"], strict=False))
        right = grade_answer(verdict["model_answer"], row["answer"], options=options) == 1
        num_right += right
        if right != verdict["correct"]:
            differ.add(verdict["id"])
    assert len(rows) == 3040
    assert differ == set(OFFICIAL_MISTAKES)
    assert num_right == 436 - len(OFFICIAL_MISTAKES)
