"""Missing memory makes work smaller, not different."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualanodiff import fitting, sampler
from dualanodiff.diffusion.objective import Schedule
from dualanodiff.fitted import load
from dualanodiff.memory import forget_peak, in_use, is_out_of_memory, peak
from dualanodiff.pair_model import Batch, PairModel
from dualanodiff.runs import RunFolder
from small import adapters, fit_small


def out_of_memory() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_what_is_no_lack_of_memory_is_not_taken_for_it() -> None:
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(out_of_memory())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_peak_is_seen_and_forgotten() -> None:
    device = torch.device("cpu")
    forget_peak(device)
    before = in_use(device)
    if before is None:
        pytest.skip("this system does not say how much memory is in use")
    held = torch.ones(16 * 2**20)
    assert (peak(device) or 0) - before > 0.9 * held.nbytes
    del held
    forget_peak(device)
    assert (peak(device) or 0) - before < 32 * 2**20


def test_a_batch_in_pieces_has_the_losses_of_the_whole() -> None:
    schedule = Schedule(torch.linspace(0.99, 0.01, 1000), "epsilon")
    random = np.random.default_rng(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.random(shape, np.float32))

    batch = Batch(
        draw(2, 5, 4, 8, 8), draw(2, 5, 4, 8, 8), torch.tensor([1, 200, 500, 700, 999]), draw(5, 1, 8, 8),
        torch.zeros(5, dtype=torch.bool), None, None,
    )  # fmt: skip

    class Model(PairModel):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.schedule, self.prompts = schedule, []
            self.dual = lambda noisy, *_: noisy.sin()  # type: ignore[assignment]

        def embed(self) -> torch.Tensor:
            return torch.zeros(3, 1, 1)

    train = fitting.Settings().updated({"train.inclusion_weight": 1}, "test").train
    whole = Model()(batch, train)
    for pieces in (2, 3, 5):
        split = batch.split(pieces, schedule)
        assert len(split) == pieces
        parts = [Model()(piece, train) * share for piece, share in split]
        torch.testing.assert_close(torch.stack(parts).sum(dim=0), whole, rtol=1e-5, atol=1e-6)


def only_small(most: int, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward pass that finds no memory for more than `most` pairs."""

    def limited(self: Any, batch: Batch, *rest: Any) -> Any:
        if batch.latents.shape[1] > most:
            raise out_of_memory()
        return forward(self, batch, *rest)

    return limited


def test_a_fit_that_finds_less_memory_learns_the_same(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"train__train_batch_size": 4, "train__max_train_steps": 3}
    whole = fit_small(tiny_base_folder, tmp_path / "whole", **changes)
    monkeypatch.setattr(PairModel, "forward", only_small(1, PairModel.forward))
    pieces = fit_small(tiny_base_folder, tmp_path / "pieces", **changes)
    assert "not enough memory at step 0; batches now go in 2 pieces" in capsys.readouterr().err
    first, second = adapters(whole), adapters(pieces)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=2e-4)


def test_drawing_goes_on_with_fewer_pairs_a_call(small_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(small_run.path, assignments={"sample.batch_size": "4"})
    said: list[str] = []
    whole = [drawn.image for drawn, _ in model.draw(4, 0)]
    draw, sizes = sampler.PairSampler.draw, []

    def limited(self: Any, indices: Any, *rest: Any, **named: Any) -> Any:
        sizes.append(len(indices))
        if len(indices) > 1:
            raise out_of_memory()
        return draw(self, indices, *rest, **named)

    monkeypatch.setattr(sampler.PairSampler, "draw", limited)
    parts = [drawn.image for drawn, _ in model.draw(8, 0, say=said.append)]
    assert sizes == [4, 2] + [1] * 8
    assert said == ["not enough memory for more than 1 pairs a call; the pairs are the same"]
    assert np.abs(parts[0].astype(int) - whole[0]).max() <= 2


def test_what_fails_for_one_pair_is_not_hidden(small_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise out_of_memory()

    monkeypatch.setattr(sampler.PairSampler, "draw", never)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(load(small_run.path).draw(2, 0))
