"""Runs that take a second: two drawn shots, settings to fit them on the toy base, and fits in processes of their own."""

import json
import multiprocessing
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file

from dualanodiff.data.shots import Shot
from dualanodiff.fitting import fit
from dualanodiff.images import write_png
from dualanodiff.model.base import load_base
from dualanodiff.runs import RunFolder
from dualanodiff.settings import Settings

SIDE = 64
SMALL: dict[str, Any] = {
    "data.resolution": SIDE,
    "model.rank": 4,
    "model.text_rank": 2,
    "model.interaction": "lowrank",
    "model.interaction_rank": 4,
    "train.max_train_steps": 6,
    "train.train_batch_size": 2,
    "train.learning_rate": 1e-3,
    "train.mixed_precision": "no",
    "train.prompt_dropout": 0.3,
    "train.inclusion_weight": 0.1,
    "train.checkpointing_steps": 2,
    "train.preview_steps": 0,
    "sample.num_inference_steps": 3,
    "sample.batch_size": 2,
}
"""A run of 6 steps in full precision."""


def small_settings(**changes: Any) -> Settings:
    """SMALL with changes, whose names are written as train__learning_rate."""
    return Settings().updated(SMALL | {key.replace("__", "."): value for key, value in changes.items()}, "test")


def draw_picture(place: int) -> tuple[np.ndarray, np.ndarray]:
    """A blue square on grey with a bright spot at one of four places, and the spot's mask."""
    rgb = np.full((SIDE, SIDE, 3), 120, np.uint8)
    rgb[12:52, 12:52] = (40, 60, 200)
    mask = np.zeros((SIDE, SIDE), bool)
    top, left = 16 + 16 * (place // 2 % 2), 16 + 16 * (place % 2)
    mask[top : top + 12, left : left + 12 + place] = True
    rgb[mask] = (250, 220, 40)
    return rgb, mask


def draw_shots(count: int = 2, folder: Path | None = None) -> list[Shot]:
    """Shots of spots; with `folder`, of files written there."""
    shots: list[Shot] = []
    for place in range(count):
        rgb, mask = draw_picture(place)
        if folder is None:
            shots.append(Shot(rgb, mask, f"{place:03}"))
            continue
        paths = folder / f"{place:03}.png", folder / f"{place:03}_mask.png"
        write_png(paths[0], rgb)
        write_png(paths[1], mask)
        shots.append(Shot(rgb, mask, f"{place:03}", *paths))
    return shots


def blurred_part(size: int = 16) -> torch.Tensor:
    """A part (1, 3, size, size) in [-1, 1]: white ground, a black square whose edge is half grey, as a decoder blurs it."""
    rgb = torch.ones(1, 3, size, size)
    rgb[..., 4:12, 4:12] = 0.1
    rgb[..., 5:11, 5:11] = -1
    return rgb


def draw_normals(folder: Path, count: int = 3) -> list[Path]:
    """Files of good pictures: the square without a spot, on a ground that is brighter from picture to picture."""
    paths = [folder / f"{i:03}.png" for i in range(count)]
    for i, path in enumerate(paths):
        rgb = np.full((SIDE, SIDE, 3), 90 + 50 * i, np.uint8)
        rgb[12:52, 12:52] = (40, 60, 200)
        write_png(path, rgb)
    return paths


def fit_small(
    base: Path,
    out: Path,
    *,
    shots: Sequence[Shot] | None = None,
    normals: Sequence[Path] = (),
    resume: bool = False,
    **changes: Any,
) -> RunFolder:
    """A small run, or its continuation."""
    return fit(
        draw_shots() if shots is None else shots,
        load_base(base),
        out,
        small_settings(**changes),
        normals=normals,
        resume=resume,
    )


def adapters(run: RunFolder) -> dict[str, torch.Tensor]:
    """Everything that a finished run learned, by file and key."""
    return {
        f"{path.name}/{key}": value for path in sorted(run.adapter.iterdir()) for key, value in load_file(path).items()
    }


def same(one: RunFolder, other: RunFolder) -> bool:
    """Whether two runs learned the same, bit for bit."""
    first, second = adapters(one), adapters(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def logged(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


# -- processes of their own


def start(work: Callable[..., None], *arguments: Any) -> Any:
    """Run `work` in a fresh process. The libraries are imported once for all of them, which takes the longest."""
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["small"])
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def fit_and_die(base: Path, out: Path, threads: int, place: str, when: int, torn: bool) -> None:
    """A small fit that is killed (SIGKILL) in the call number `when` of the function `place`.

    With `torn`, half of what the call was going to add to a file is there.
    """
    original = pkgutil.resolve_name(place)
    calls = 0

    def patched(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < when:
            return original(*args, **kwargs)
        if torn:
            path = next(item for item in args if isinstance(item, Path))
            before = path.stat().st_size if path.exists() else 0
            original(*args, **kwargs)
            os.truncate(path, (before + path.stat().st_size) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    with mock.patch(place, patched), mock.patch("dualanodiff.fitting.LOG_STEPS", 3):
        fit_alone(base, out, threads)


def fit_alone(base: Path, out: Path, threads: int, resume: bool = False, **changes: Any) -> None:
    """A small fit with so many threads, as the results' last bits depend on them."""
    torch.set_num_threads(threads)
    fit_small(base, out, resume=resume, **changes)


def fit_as_one_of(rank: int, world: int, port: int, base: Path, out: Path) -> None:
    """One of the processes that `accelerate launch --cpu` starts, which knows the others by its environment."""
    os.environ |= {
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
    }
    fit_alone(base, out, 1)
