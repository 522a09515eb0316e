"""A policy that solves "VLMs are blind" by measuring pixels: one program, then what it printed.

Written for the drawings of that set (thin outlines on white, two filled discs); it stands for a
model that knows how to use its tool, to test everything around the model on real images.
"""

from pyvision_rl.types import Context

LOAD = """import numpy as np
pixels = np.asarray(image_clue_0.convert("RGB")).astype(int)
red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
ink = pixels.min(axis=2) < 200

def runs(flags, gap=1):
    places = np.flatnonzero(flags)
    return 0 if len(places) == 0 else 1 + int((np.diff(places) > gap).sum())
"""
CROSSINGS = """
is_red, is_blue = (red - blue > 100) & (green < 150), (blue - red > 100) & (green < 150)
rows = np.arange(pixels.shape[0])[:, None]
both = is_red.any(axis=0) & is_blue.any(axis=0)
above = [(rows * mask).sum(axis=0)[both] / mask.sum(axis=0)[both] for mask in (is_red, is_blue)]
side = np.sign(np.round(above[0] - above[1]))
side = side[side != 0]
print("{%d}" % (side[1:] != side[:-1]).sum())
"""
GRID = """
lines = [runs(ink.mean(axis=axis) > 0.8) - 1 for axis in (1, 0)]
print("rows={%d} columns={%d}" % tuple(lines))
"""
OUTLINES = """
rows = np.flatnonzero(ink.any(axis=1))
top, bottom = ink[rows[0] : rows[0] + 2].any(axis=0), ink[rows[-1] - 1 : rows[-1] + 1].any(axis=0)
print("{%d}" % (runs(top, 8) + runs(bottom, 8)))
"""
NESTED = """
rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
low, high = columns[0], columns[-1]
best = max(runs(ink[y]) for y in range(rows[0], rows[-1] + 1))
print("{%d}" % (best // 2))
"""
DISCS = """
one = np.argwhere((blue > 200) & (red < 120))
other = np.argwhere((red > 150) & (green < 120))
nearest = min(np.hypot(*(other - place).T).min() for place in one)
print("Yes" if nearest < 1.5 else "No")
"""
PROGRAMS = {
    "blue and red lines": CROSSINGS,
    "rows and columns": GRID,
    "circles touching": DISCS,
    "Count the circles": OUTLINES,
    "Count the pentagons": OUTLINES,
    "number of squares": NESTED,
}


def blind_policy(context: Context) -> str:
    """The program for the question, then its output as the answer."""
    if not context.turns:
        program = next(code for key, code in PROGRAMS.items() if key in context.prompt.text)
        return f"I measure it.\n<code>\n```python\n{LOAD}{program}```\n</code>"
    seen = context.turns[-1].observation
    text = seen.text if seen else ""
    printed = text.partition("Text Result:\n")[2].partition("</interpreter>")[0]
    return f"<answer>\n\\boxed{{{printed.strip()}}}\n</answer>"
