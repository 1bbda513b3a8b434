"""Draw pictures ahead of their need: beside a GPU, which would wait for them, in processes of their own."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")

MOST_WORKERS = 12


def drawn_ahead(draw: Callable[[int], T], indices: Sequence[int], device: torch.device) -> Iterable[T]:
    """`draw(index)` for each index, in this order; what is drawn depends on the index alone, not on who draws it.

    On a processor the drawing is done when it is asked for: other processes would take the training's own cores.
    """
    workers = 0 if device.type == "cpu" else max(1, min(MOST_WORKERS, (os.cpu_count() or 2) - 2))
    return _loader(draw, indices, workers)


def _loader(draw: Callable[[int], T], indices: Sequence[int], workers: int) -> Iterable[T]:
    return DataLoader(_Drawing(draw, indices), batch_size=None, num_workers=workers, collate_fn=_as_it_is)


class _Drawing(Dataset[Any]):
    def __init__(self, draw: Callable[[int], Any], indices: Sequence[int]) -> None:
        self.draw, self.indices = draw, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Any:
        return self.draw(self.indices[place])


def _as_it_is(made: Any) -> Any:
    return made
