from pathlib import Path

import pytest

from dualanodiff.judge.reference import Reference
from toy_product import read_toy, write_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy product on disk; copy it before changing it."""
    return write_toy(tmp_path_factory.mktemp("toy") / "disc")


@pytest.fixture(scope="session")
def toy_reference(toy: Path) -> Reference:
    """The toy product's reference, measured once."""
    return read_toy(toy)
