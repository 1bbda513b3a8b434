from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dualanodiff.images import write_png
from dualanodiff.progress import silent

if TYPE_CHECKING:
    from dualanodiff.runs import RunFolder


@pytest.fixture(autouse=True)
def _nobody_was_silenced() -> Iterator[None]:
    """A command called with --json in this process silences progress; the next test must not inherit that."""
    silent.set(False)
    yield
    silent.set(False)


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another measured, and none writes into the user's cache."""
    monkeypatch.setenv("DUALANODIFF_CACHE", str(tmp_path / ".cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the repository; tests that need it skip where it is absent."""
    folder = Path(__file__).parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the real data and weights of {folder}, which is absent")
    return folder


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy base in Stable Diffusion's layout; copy it before changing it."""
    from tiny import save_tiny_base  # torch takes seconds, which tests of the data need not wait

    return save_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def small_run(tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A finished run on two shots; copy it before changing it."""
    from small import draw_shots, fit_small

    folder = tmp_path_factory.mktemp("run")
    return fit_small(tiny_base_folder, folder / "run", shots=draw_shots(2, folder / "shots"))


@pytest.fixture
def product(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a small product in the MVTec layout and returns the category's folder.

    Pictures are noisy light grey squares named 000.png, 001.png, ...; each defect is a dark red patch that its mask
    covers exactly, elsewhere in each picture.
    """

    def make(
        name: str = "nut",
        *,
        defects: Mapping[str, int] | None = None,
        good: int = 4,
        test_good: int = 2,
        size: int = 32,
        under: Path | None = None,
    ) -> Path:
        root = (under or tmp_path / "data") / name
        random = np.random.default_rng(0)
        for part, count in (("train", good), ("test", test_good)):
            for number in range(count):
                write_png(
                    root / part / "good" / f"{number:03}.png", random.integers(180, 220, (size, size, 3), np.uint8)
                )
        for defect, count in (defects or {"scratch": 6}).items():
            for number in range(count):
                rgb = random.integers(180, 220, (size, size, 3), np.uint8)
                mask = np.zeros((size, size), bool)
                top, left = random.integers(0, size // 2, 2)
                mask[top : top + size // 3, left : left + size // 3] = True
                rgb[mask] = (90, 10, 10)
                write_png(root / "test" / defect / f"{number:03}.png", rgb)
                write_png(root / "ground_truth" / defect / f"{number:03}_mask.png", mask)
        return root

    return make
