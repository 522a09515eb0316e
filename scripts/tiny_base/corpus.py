"""What the tokenizer is trained on: words of the chat layout, of the tasks and of plotting code."""

from __future__ import annotations

from pyvision_rl.data.needle import Look, NeedlePlan, oracle_turns, question_about
from pyvision_rl.data.needle_draw import COLOURS
from pyvision_rl.model.codec import SYSTEM, observation_text, prompt_text

VOCAB_SIZE = 768

_CHAT = (
    f"system\n{SYSTEM}\nuser\nassistant\n",
    "Find it with Python if you need to. image_clue_0 is 672 x 672.\n",
    "Find it with Python if you need to. video_clue_0 has 144 frames of 112 x 112 at 12 frames a "
    "second.\n",
    "Where is the tag? List the tags. Write the crop. Read it. Look closely. Take your time.\n",
    "Answer in a box. Think step by step, then end with the answer in a box: your answer\n",
    "none clear I see the digit. not shown. frame sheet\n",
)
_PYTHON = (
    "```python\nimport numpy as np\nimport matplotlib.pyplot as plt\nfrom PIL import Image\n",
    "frames = video_clue_0.get_batch(range(0, 144, 4)).asnumpy()\nprint(len(frames))\n",
    "plt.imshow(frames.reshape(6, 6, 112, 112, 3).transpose(0, 2, 1, 3, 4).reshape(672, 672, 3))\n",
    "plt.imshow(video_clue_0[7].asnumpy())\nplt.axis('off')\nplt.figure(figsize=(1.68, 1.68))\n",
    "for i in range(6):\n    for j in range(6):\n        if x > y:\n            print(i, j)\n",
    "image_clue_1.resize((168, 168)).rotate(90).size width height get_avg_fps()\nplt.close()\n",
    "plt.subplot(1, 2, 1)\nplt.title('a')\nplt.show()\n```\n",
)
_ERRORS = (
    'Traceback (most recent call last):\n  File "<cell>", line 1, in <module>\n',
    "NameError: name 'x' is not defined\nSyntaxError: invalid syntax\n",
    "IndexError: list index out of range\nTypeError: 'int' object is not callable\n",
    "ValueError: Error: the tool failed, try again. TimeoutError: time limit exceeded\n",
)
_NUMBERS = " ".join(str(number) for number in (112, 168, 672, 144, 14, 98, 84, 28, 36, 56))


def tokenizer_corpus() -> list[str]:
    """Texts weighted by repetition: the protocol's words first become single tokens."""
    texts: list[str] = []
    for index, colour in enumerate(COLOURS):
        for digit in "0123456789":
            row, column = int(digit) % 6, (index + int(digit)) % 6
            for kind in ("easy", "one_look"):
                texts += oracle_turns(NeedlePlan(kind, (Look(colour, row, column),), digit))
            texts.append(prompt_text(question_about(colour), 1))
            texts.append(observation_text("", 1, int(digit)))
            texts.append(observation_text(digit, 0, 1))
            texts.append(f"{digit} {digit} {digit}, ({digit}) +{digit}*{digit} {_NUMBERS}")
    # With and without a leading blank, colours and digits are one token each.
    texts += 200 * [f"{word}\n {word}" for word in (*COLOURS, *"0123456789")]
    return texts + 80 * list(_CHAT) + 60 * list(_PYTHON) + 60 * list(_ERRORS)
