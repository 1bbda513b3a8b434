"""Resumable states."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dualanodiff.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from dualanodiff.errors import RunError


def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        module(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path: Path) -> None:
    whole = model()
    train(whole, torch.optim.AdamW(whole.parameters(), lr=0.1), range(6))
    first = model()
    optimizer = torch.optim.AdamW(first.parameters(), lr=0.1)
    train(first, optimizer, range(3))
    groups = {"model": first.state_dict(), "optimizer": optimizer_tensors(optimizer, first.named_parameters())}
    save_checkpoint(tmp_path / "state.safetensors", groups, {"step": 3})
    second = model()
    optimizer = torch.optim.AdamW(second.parameters(), lr=0.1)
    found, meta = load_checkpoint(tmp_path / "state.safetensors")
    second.load_state_dict(found["model"])
    restore_optimizer(optimizer, second.named_parameters(), found["optimizer"])
    train(second, optimizer, range(meta["step"], 6))
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), second.parameters(), strict=True))


def test_groups_and_header_come_back_as_they_were(tmp_path: Path) -> None:
    groups = {"a": {"x:y/z": torch.arange(3), "half": torch.ones(2).bfloat16()}, "b": {"turned": torch.ones(2, 3).T}}
    save_checkpoint(tmp_path / "state.safetensors", groups, {"step": 7, "plan": {"rate": 0.1}})
    found, meta = load_checkpoint(tmp_path / "state.safetensors")
    assert meta == {"step": 7, "plan": {"rate": 0.1}}
    assert found.keys() == groups.keys()
    for name, tensors in groups.items():
        assert found[name].keys() == tensors.keys()
        assert all(torch.equal(found[name][key], value) for key, value in tensors.items())


def test_a_parameter_that_was_never_stepped_stays_without_a_state() -> None:
    module = model()
    optimizer = torch.optim.AdamW(module.parameters())
    restore_optimizer(optimizer, module.named_parameters(), {"0.bias/step": torch.tensor(1.0)})
    assert list(optimizer.state) == [module.get_parameter("0.bias")]


@pytest.mark.parametrize("damage", ["cut", "emptied", "foreign", "deleted"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "step-00000004.safetensors"
    save_checkpoint(path, {"model": {"x": torch.zeros(100)}}, {"step": 4})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(3)}, path)
    else:
        path.unlink()
    with pytest.raises(RunError, match=r"step-00000004.safetensors: not a readable checkpoint .*; delete it to resume"):
        load_checkpoint(path)
