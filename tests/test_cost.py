"""What a run would cost is measured on the model that would be trained."""

import pytest

from dualanodiff.cost import measure_cost
from dualanodiff.model.adapters import save_adapters
from dualanodiff.model.base import load_base
from dualanodiff.model.dual import DualUNet
from dualanodiff.model.prompts import TextAdapter
from dualanodiff.settings import Settings
from tiny import save_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base(save_tiny_base(tmp_path_factory.mktemp("tiny")))


def settings_of(base, **values):
    small = {"data.resolution": base.resolution, "model.rank": 2, "model.text_rank": 2}
    return Settings().updated(small | values, "test")


def test_the_size_of_the_files_is_the_size_they_have(base, tmp_path):
    settings = settings_of(
        base, **{"model.interaction": "lowrank", "model.interaction_rank": 4, "model.background": "paper"}
    )
    cost = measure_cost(base, settings)
    dual = DualUNet(base.unet, rank=2, interaction="lowrank", interaction_rank=4, background="paper")
    save_adapters(dual, TextAdapter(base.text_encoder, base.tokenizer, rank=2), tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    # Headers and the names of some hundred tensors come on top.
    assert cost["adapter_bytes"] == pytest.approx(written, rel=0.2, abs=100_000)


def test_training_takes_its_steps_and_its_batch(base, monkeypatch):
    monkeypatch.setattr("dualanodiff.cost._seconds", lambda work, _: work() or 0.5)
    settings = settings_of(
        base, **{"train.max_train_steps": 10, "train.train_batch_size": 3, "sample.num_inference_steps": 4}
    )
    cost = measure_cost(base, settings)
    assert (cost["train_steps"], cost["train_seconds"], cost["pair_seconds"]) == (10, 15.0, 2.0)


def test_measuring_leaves_the_base_untouched(base):
    before = {name: weight.clone() for name, weight in base.unet.state_dict().items()}
    cost = measure_cost(base, settings_of(base))
    assert cost["train_seconds"] > 0
    assert all(weight.equal(before[name]) for name, weight in base.unet.state_dict().items())
    assert all(weight.grad is None for weight in base.unet.parameters())
