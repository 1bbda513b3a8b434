"""Draw pictures ahead of their need: beside a GPU, which would wait for them, in processes of their own."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")

MOST_WORKERS = 12


def drawn_ahead(draw: Callable[[int], T], indices: Sequence[int], device: torch.device) -> Iterable[T]:
    """`draw(index)` for each index, in this order; what is drawn depends on the index alone, not on who draws it.

    Arrays, not tensors, come cheaply from other processes: those go through a pipe, these through shared memory, of which
    a container may have little.

    On a processor the drawing is done when it is asked for: other processes would take the training's own cores.
    """
    if not indices:
        return ()
    return _loader(draw, indices, 0 if device.type == "cpu" else max(1, min(MOST_WORKERS, _cores() - 2)))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _loader(draw: Callable[[int], T], indices: Sequence[int], workers: int) -> Iterable[T]:
    # Forked where that is possible, so that the packed pictures are not copied to each.
    forks = workers > 0 and "fork" in multiprocessing.get_all_start_methods()
    return DataLoader(
        _Drawing(draw, indices),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="fork" if forks else None,
    )


class _Drawing(Dataset[Any]):
    def __init__(self, draw: Callable[[int], Any], indices: Sequence[int]) -> None:
        self.draw, self.indices = draw, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Any:
        return self.draw(self.indices[place])


def _as_it_is(made: Any) -> Any:
    return made
