"""Inspectors of the paper's form, trained to a fixed step from evenly drawn pictures."""

import numpy as np
import pytest
import torch

from dualanodiff.errors import SettingsError, TrainingStopped
from dualanodiff.lift import training
from dualanodiff.lift.inspectors import ResNet18, UNet, anomaly_maps, focal_loss
from dualanodiff.lift.training import PAPER, Plan, Pool, predict_maps, read_plan, train_unet
from lift.small_task import QUICK


def pool(count, value, *, marked):
    return Pool(np.full((count, 32, 32, 3), value, np.uint8), np.full((count, 32, 32), marked))


def test_the_paper_size_is_the_papers():
    assert PAPER.widths == (64, 128, 256, 512, 512, 512)
    assert (PAPER.side, PAPER.steps * PAPER.batch, PAPER.learning_rate) == (256, 200 * 500, 1e-4)


def test_the_unet_keeps_the_pictures_size_and_gives_two_outputs():
    assert UNet((4, 8, 8, 8, 8, 8))(torch.zeros(2, 3, 64, 96)).shape == (2, 2, 64, 96)


def test_the_resnet_has_eighteen_layers_with_weights():
    layers = [m for m in ResNet18(3, 4).modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len([m for m in layers if getattr(m, "kernel_size", None) != (1, 1)]) == 18
    assert sum(p.numel() for p in ResNet18(1000, 64).parameters()) == 11_689_512  # as published


def test_the_focal_loss_cares_little_for_what_is_already_right():
    right = torch.tensor([[[[4.0]], [[-4.0]]]])
    masks = torch.zeros(1, 1, 1, dtype=torch.long)
    probability = torch.sigmoid(torch.tensor(8.0))
    assert focal_loss(right, masks).item() == pytest.approx(
        ((1 - probability) ** 2 * -probability.log()).item(), rel=1e-4
    )
    assert focal_loss(right, masks, gamma=0).item() == pytest.approx(-probability.log().item(), rel=1e-4)
    assert anomaly_maps(right).item() == pytest.approx(1 - probability.item(), abs=1e-6)


def test_half_of_a_batch_is_normal_and_types_and_pools_are_drawn_evenly():
    shots, pairs, other = pool(2, 60, marked=True), pool(200, 120, marked=True), pool(5, 180, marked=True)
    draws = [
        training._draw_pairs(pool(3, 0, marked=False), [[shots, pairs], [other]], QUICK, 0, step) for step in range(200)
    ]
    values = np.concatenate([images[:, 0, 0, 0] for images, _ in draws])
    assert np.mean(values == 0) == 0.5
    shares = [np.mean(values == value) for value in (60, 120, 180)]
    assert shares == pytest.approx([0.125, 0.125, 0.25], abs=0.04)
    assert all((masks.any(axis=(1, 2)) == (images[:, 0, 0, 0] > 0)).all() for images, masks in draws)


def test_picture_and_mask_are_mirrored_together():
    image = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(1, 32, 32, 3) % 251
    both = Pool(image.astype(np.uint8), image[..., 0] > 200)
    random = np.random.default_rng(0)
    drawn = [training._pick([both], random, flips=True) for _ in range(40)]
    assert all(((rgb[..., 0] > 200) == mask).all() for rgb, mask in drawn)
    assert len({rgb.tobytes() for rgb, _ in drawn}) == 4
    assert len({training._pick([both], random, flips=False)[0].tobytes() for _ in range(40)}) == 1


def test_the_network_of_the_last_step_is_the_one_that_tests():
    seen = []
    normals, defects = pool(2, 200, marked=False), [[pool(2, 90, marked=True)]]
    plan = Plan(side=32, widths=(4, 4), steps=4, batch=4, looks=2)
    last = train_unet(normals, defects, plan, 0, look=lambda step, network: seen.append((step, state(network))))
    assert [step for step, _ in seen] == [2, 4]
    assert all(torch.equal(a, b) for a, b in zip(seen[-1][1], state(last), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[0][1], state(last), strict=True))


def state(network):
    return [value.clone() for value in network.state_dict().values()]


def test_maps_do_not_depend_on_the_pictures_beside_them():
    network = train_unet(pool(2, 200, marked=False), [[pool(2, 90, marked=True)]], QUICK, 0)
    images = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
    assert predict_maps(network, images, batch=5) == pytest.approx(predict_maps(network, images, batch=2), abs=0.02)


def test_a_loss_that_is_no_number_stops_with_one_line(monkeypatch):
    monkeypatch.setattr(training, "focal_loss", lambda logits, _: logits.sum() * float("nan"))
    with pytest.raises(TrainingStopped, match="the inspector's loss is nan at step 0; lower its learning rate"):
        train_unet(pool(2, 200, marked=False), [[pool(2, 90, marked=True)]], QUICK, 0)


def test_a_plan_is_a_size_with_changes():
    plan = read_plan("cpu", ["steps=7", "widths=4,8", "learning_rate=1e-2", "flips=false"])
    assert (plan.steps, plan.widths, plan.learning_rate, plan.flips) == (7, (4, 8), 0.01, False)
    assert read_plan("paper") == PAPER


@pytest.mark.parametrize(
    ("size", "changes", "text"),
    [
        ("huge", [], "--size huge: unknown; there are: cpu, paper"),
        ("cpu", ["depth=3"], "--set depth=3: no such setting of an inspector; there are: side, widths"),
        ("cpu", ["steps=many"], "--set steps=many: must be a whole number"),
        ("cpu", ["flips=perhaps"], "--set flips=perhaps: must be true or false"),
        ("cpu", ["learning_rate=fast"], "--set learning_rate=fast: must be a number"),
        ("cpu", ["widths=a,b"], "--set widths=a,b: must be numbers with commas"),
        ("cpu", ["side=100"], "side is 100, but the U-Net of 6 levels needs a multiple of 32"),
        ("cpu", ["steps=0"], "steps is 0, but must be 1 or more"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(size, changes, text):
    with pytest.raises(SettingsError, match=text):
        read_plan(size, changes)
