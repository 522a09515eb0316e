"""What well-behaved cells do must work inside."""

from __future__ import annotations

import importlib.util

import pytest

from tests.sandbox.conftest import Sandbox

STANDARD = {
    "asyncio": "import asyncio; print(asyncio.run(asyncio.sleep(0.01, 5)))",
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: print(sum(pool.map(abs, [-2, 3])))"
    ),
    "time": "import time, datetime; time.sleep(0.001); datetime.datetime.now(); print(5)",
    "decimal": "import decimal, fractions, statistics; print(statistics.mean([4, 6]))",
    "jpeg": (
        "b = io.BytesIO(); Image.new('RGB', (8, 8)).save(b, 'JPEG'); b.seek(0)\n"
        "print(Image.open(b).size[0] - 3)"
    ),
    "webp": (
        "b = io.BytesIO(); Image.new('RGB', (8, 8)).save(b, 'WEBP'); b.seek(0)\n"
        "print(Image.open(b).size[0] - 3)"
    ),
    "font": "from PIL import ImageFont; ImageFont.load_default(20); print(5)",
    "linear algebra": "print(round(float(np.linalg.det(np.eye(3) * 5 ** (1 / 3)))))",
    "dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int = 5\nprint(A().x)"
    ),
    "pickle": "import pickle\nclass A: x = 5\nprint(pickle.loads(pickle.dumps(A())).x)",
    "sqlite": "import sqlite3; print(sqlite3.connect('a.db').execute('select 5').fetchone()[0])",
}

INSTALLED = {
    "scipy": "from scipy import ndimage, optimize; print(ndimage.label(np.eye(3))[1] + 2)",
    "skimage": "from skimage import filters; filters.sobel(np.eye(9)); print(5)",
    "cv2": "import cv2; cv2.GaussianBlur(np.eye(9), (3, 3), 0); print(5)",
    "sklearn": (
        "from sklearn.cluster import KMeans\n"
        "print(len(KMeans(5, n_init=1).fit(np.random.rand(20, 2)).cluster_centers_))"
    ),
}


@pytest.mark.parametrize("code", STANDARD.values(), ids=STANDARD.keys())
def test_ordinary_code_works(sandbox: Sandbox, code: str) -> None:
    result = sandbox.run(code)
    assert (result.kind, result.text) == ("ok", "5\n")


@pytest.mark.parametrize("name", INSTALLED)
def test_a_promised_library_works(patient_sandbox: Sandbox, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    result = patient_sandbox.run(INSTALLED[name])
    assert (result.kind, result.text) == ("ok", "5\n")
