"""Crops and frames read off programs; the boxes are worked out by hand."""

import pytest

from pyvision_rl.viewer.looks import Crop, Fetch, VideoFacts, find_looks
from pyvision_rl.viewer.pictures import Figures

SIZE = {0: (672, 480)}


def boxes(*codes: str | None, sizes=SIZE) -> list[tuple[int, tuple[float, ...]]]:
    return [(crop.turn, crop.box) for crop in find_looks(codes, sizes, {}).crops]


@pytest.mark.parametrize(
    ("code", "box"),
    [
        ("plt.imshow(image_clue_0.crop((10, 20, 110, 220)))", (10, 20, 110, 220)),
        ("x, y = 5*96, 2*96\nimage_clue_0.crop((x+6, y+6, x+90, y+90))", (486, 198, 570, 282)),
        ("image_clue_0.crop(box=[0, 0, 5, 5])", (0, 0, 5, 5)),
        ("a = np.array(image_clue_0)\nplt.imshow(a[100:200, 50:60])", (50, 100, 60, 200)),
        ("np.asarray(image_clue_0.convert('L'))[:, -72:]", (600, 0, 672, 480)),
        ("w, h = image_clue_0.size\nimage_clue_0.crop((w//2, h//2, w, h))", (336, 240, 672, 480)),
        ("image_clue_0.crop((600, 400, 9999, 9999))", (600, 400, 672, 480)),
        ("if True:\n  with x:\n    image_clue_0.crop((1, 2, 3, 4)).resize((99, 99))", (1, 2, 3, 4)),
        ("image_clue_0.resize((1344, 960)).crop((100, 100, 200, 300))", (50, 50, 100, 150)),
        ("i = image_clue_0.crop((100, 100, 300, 300))\ni = i.rotate(3)", (100, 100, 300, 300)),
        ("n = 5\nif (n := 9) > 3: image_clue_0.crop((0, 0, n, n))", (0, 0, 9, 9)),
        ("np.array(image_clue_0)[400:999, 600:999]", (600, 400, 672, 480)),
    ],
)
def test_one_crop(code, box):
    assert boxes(code) == [(0, box)]


def test_a_crop_of_a_crop_lies_in_the_given_image():
    code = "part = image_clue_0.crop((100, 50, 300, 250))"
    assert boxes(code, None, "plt.imshow(part.crop((10, 20, 30, 40)))") == [
        (0, (100, 50, 300, 250)),
        (2, (110, 70, 130, 90)),
    ]


def test_a_crop_beyond_the_edges_has_room_there():
    """PIL fills it with black: (100, 100) of such a crop from -100 on is the image's corner."""
    outer = "part = image_clue_0.crop((-100, -100, 200, 200))"
    assert boxes(f"{outer}\npart.crop((100, 100, 200, 150))") == [
        (0, (0, 0, 200, 200)),
        (0, (0, 0, 100, 50)),
    ]
    assert boxes(f"{outer}\npart.resize((600, 600)).crop((300, 300, 600, 600))")[1:] == [
        (0, (50, 50, 200, 200))
    ]
    assert boxes(f"{outer}\npart.crop((0, 0, 90, 90))") == [(0, (0, 0, 200, 200))]


def test_loops_over_known_values_are_followed():
    code = "for k in range(2):\n    show(image_clue_0.crop((k*10, 0, k*10+10, 10)))"
    assert boxes(code) == [(0, (0, 0, 10, 10)), (0, (10, 0, 20, 10))]


@pytest.mark.parametrize(
    "code",
    [
        "image_clue_0.crop(find_box(image_clue_0))",
        "image_clue_0.crop((0, 0, 672, 480))",
        "image_clue_0.crop((50, 50, 10, 10))",
        "image_clue_0.crop((0, 0, 10 ** 9 ** 9, 5))",
        "image_clue_0.crop((1/0, 0, 5, 5))",
        "image_clue_7.crop((0, 0, 5, 5))",
        "this is no Python",
        "image_clue_0.crop(" * 300,
        "\x00",
        "i = image_clue_0.copy()\ni.thumbnail((300, 300))\ni.crop((0, 0, 100, 100))",
        "image_clue_0.resize((300, 300), box=(0, 0, 60, 60)).crop((0, 0, 100, 100))",
        "b = [1, 2, 30, 40]\nb[0] = left\nimage_clue_0.crop(b)",
        "b = [1, 2, 30, 40]\nb.sort()\nimage_clue_0.crop((b[0], 0, 50, 50))",
        "x = 5\nwith find() as x:\n  image_clue_0.crop((x, x, 30, 40))",
        "image_clue_0.crop((0, 0, max(3, 4, key=area), 9))",
    ],
)
def test_what_cannot_be_read_says_nothing(code):
    assert boxes(code) == []


def test_programs_are_never_run(tmp_path):
    witness = tmp_path / "witness"
    code = f"open({str(witness)!r}, 'w')\nimage_clue_0.crop((0, 0, 5, exec('raise SystemExit')))"
    assert boxes(code) == []
    assert not witness.exists()


def test_endless_programs_end():
    nested = "for a in range(500):\n for b in range(500):\n  for c in range(500):\n   x = a*b*c"
    assert boxes(nested, "image_clue_0.crop((0, 0, 5, 5))") == []


def test_frames_of_a_video():
    codes = [
        "fps = video_clue_0.get_avg_fps()\nplt.imshow(video_clue_0[int(2 * fps)].asnumpy())",
        "n = len(video_clue_0)\nvideo_clue_0.get_batch(np.linspace(0, n - 1, 3).astype(int))",
        "video_clue_0.get_batch([int(s * 25) for s in (1, 2)])\nvideo_clue_0[-1]",
        "video_clue_0[100:300:100]",
    ]
    looks = find_looks(codes, {}, {0: VideoFacts(1001, 25.0)})
    assert looks.fetches == (
        Fetch(0, 0, (50,)),
        Fetch(1, 0, (0, 500, 1000)),
        Fetch(2, 0, (25, 50)),
        Fetch(2, 0, (1000,)),
        Fetch(3, 0, (100, 200)),
    )


@pytest.mark.parametrize(
    ("numbers", "frames"),
    [
        ("np.linspace(0, 90, num=4)", (0, 30, 60, 90)),
        ("np.linspace(0, 100, 4, endpoint=False)", (0, 25, 50, 75)),
        ("np.linspace(0, 90, 4, dtype=int)", (0, 30, 60, 90)),
        ("np.arange(0, 10, 2.5)", (0, 2, 5, 7)),
        ("np.arange(3.5)", (0, 1, 2, 3)),
        ("range(30, 0, -10)", (30, 20, 10)),
        ("range(98, 100)", (98, 99)),
        ("[0, 100]", None),
        ("np.linspace(0, 90, 4, axis=1)", None),
    ],
)
def test_numbers_of_frames(numbers, frames):
    """Those that numpy gives; none where the text does not tell them or there is no such frame."""
    looks = find_looks([f"video_clue_0.get_batch({numbers})"], {}, {0: VideoFacts(100, 10.0)})
    assert looks.fetches == ((Fetch(0, 0, frames),) if frames else ())


def test_frames_of_a_video_of_unknown_length():
    codes = ["video_clue_0[0:3]", "video_clue_0[5:]", "video_clue_0[-5:9]", "video_clue_0[:2]"]
    looks = find_looks(codes, {}, {0: VideoFacts(0, 0.0)})
    assert looks.fetches == (Fetch(0, 0, (0, 1, 2)), Fetch(3, 0, (0, 1)))


def test_every_known_image_has_crops_of_its_own():
    looks = find_looks(["image_clue_1.crop((0, 0, 5, 5))"], {0: (9, 9), 1: (20, 20)}, {})
    assert looks.crops == (Crop(0, 1, (0, 0, 5, 5), (20, 20)),)


SHOW = "plt.imshow(image_clue_0.crop((100, 50, 300, 250)))\nplt.show()"
ENLARGED = "plt.imshow(image_clue_0.crop((100, 50, 300, 250)).resize((400, 400)))"


@pytest.mark.parametrize(
    ("first", "recorded", "exact", "size", "beneath"),
    [
        (SHOW, (196, 196), True, (200, 200), (110, 70, 130, 90)),
        (ENLARGED, (392, 392), True, (400, 400), (105, 60, 115, 70)),
        (ENLARGED, (140, 140), True, (400, 400), (105, 60, 115, 70)),
        (SHOW, (644, 476), False, (640, 480), None),
        (SHOW, (644, 476), True, (644, 476), None),
        (f"plt.figure(figsize=(10, 5))\n{SHOW}", (1008, 504), False, (1000, 500), None),
        (f"{SHOW}\nplt.imshow(mask)", (196, 196), True, (196, 196), None),
        ("plt.imshow(blur(image_clue_0))", (84, 84), True, (84, 84), None),
    ],
)
def test_a_crop_of_a_figure_lies_in_the_figure(first, recorded, exact, size, beneath):
    """And in the given image where the figure has its very pixels."""
    second = "image_clue_1.crop((10, 20, 30, 40))"
    figures = {0: Figures(1, (recorded,))}
    looks = find_looks([first, second], SIZE, {}, figures, exact=exact)
    expected = [Crop(1, 1, (10, 20, 30, 40), size)]
    if beneath:
        expected.append(Crop(1, 0, beneath, SIZE[0]))
    assert [crop for crop in looks.crops if crop.turn == 1] == expected


def test_figures_of_one_turn_are_told_apart():
    shows = "    plt.imshow(image_clue_0.crop((k*99, 0, k*99+84, 84)))\n    plt.show()"
    code = f"for k in range(2):\n{shows}"
    figures = {0: Figures(1, ((84, 84), (84, 84)))}
    looks = find_looks([code, "image_clue_2.crop((0, 0, 9, 9))"], SIZE, {}, figures, exact=True)
    assert looks.crops[2:] == (
        Crop(1, 2, (0, 0, 9, 9), (84, 84)),
        Crop(1, 0, (99, 0, 108, 9), SIZE[0]),
    )
