from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from dualanodiff.model.base import Base, load_base
from tiny import save_tiny_base, tiny_unet


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy base in Stable Diffusion's layout; copy it before changing it."""
    return save_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def base(tiny_base_folder: Path) -> Base:
    """The toy base, freshly loaded."""
    return load_base(tiny_base_folder)


@pytest.fixture
def unet() -> UNet2DConditionModel:
    """The toy base's UNet, without the rest of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_unet().eval()
