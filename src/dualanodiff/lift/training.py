"""Training an inspector to a fixed last step, and what it says about pictures it has not seen.

Every arm is trained by the same plan: same architecture, steps, learning rate and seeds. No epoch is ever chosen.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualanodiff.errors import SettingsError, TrainingStopped
from dualanodiff.lift.inspectors import PAPER_WIDTHS, ResNet18, UNet, anomaly_maps, focal_loss
from dualanodiff.memory import best_device
from dualanodiff.seeds import numpy_stream, stream_seed

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Plan:
    """How an inspector is trained; the defaults are the small size for processors."""

    side: int = 128
    """Pictures are squashed to this many pixels a side, a multiple of 32."""
    widths: tuple[int, ...] = (8, 16, 32, 64, 64, 64)
    """Channels of the U-Net's levels, finest first."""
    steps: int = 300
    batch: int = 8
    learning_rate: float = 3e-3
    """Falls to a fifth at 80 % and again at 90 % of the steps."""
    flips: bool = True
    """Mirror images of every training picture, both ways, the same in every arm."""
    resnet_width: int = 16
    resnet_steps: int = 200
    resnet_batch: int = 16
    resnet_rate: float = 1e-3
    looks: int = 0
    """Tests during training, of which only the row called "as the paper does it" may take the best."""

    def __post_init__(self) -> None:
        levels = 2 ** (len(self.widths) - 1)
        if self.side < levels or self.side % levels:
            msg = f"side is {self.side}, but the U-Net of {len(self.widths)} levels needs a multiple of {levels}"
            raise SettingsError(msg)
        wrong = [
            name
            for name in ("steps", "batch", "resnet_width", "resnet_steps", "resnet_batch")
            if getattr(self, name) < 1
        ]
        if wrong:
            msg = f"{wrong[0]} is {getattr(self, wrong[0])}, but must be 1 or more"
            raise SettingsError(msg)

    def facts(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self) | {"widths": list(self.widths)}


# Adam at 1e-4, falling at 80 % and 90 %, 200 epochs of 500 samples in batches of 16, at 256 pixels.
PAPER = Plan(
    side=256,
    widths=PAPER_WIDTHS,
    steps=200 * 500 // 16,
    batch=16,
    learning_rate=1e-4,
    flips=False,
    resnet_width=64,
    resnet_steps=2000,
    resnet_batch=16,
    resnet_rate=1e-4,
)
SIZES = {"cpu": Plan(), "paper": PAPER}


def read_plan(size: str, changes: Sequence[str] = ()) -> Plan:
    """The plan of a size with NAME=VALUE changes; SettingsError naming the size or setting that is unknown."""
    if size not in SIZES:
        msg = f"--size {size}: unknown; there are: {', '.join(SIZES)}"
        raise SettingsError(msg)
    kinds = {field.name: field.type for field in fields(Plan)}
    values: dict[str, Any] = {}
    for text in changes:
        name, _, value = text.partition("=")
        if name not in kinds:
            msg = f"--set {text}: no such setting of an inspector; there are: {', '.join(kinds)}"
            raise SettingsError(msg)
        values[name] = _parse(kinds[name], value, text)
    return replace(SIZES[size], **values)


def _parse(kind: Any, value: str, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        if kind in (int, float):
            return kind(value)
        return tuple(int(part) for part in value.split(","))
    except (KeyError, ValueError):
        name = getattr(kind, "__name__", "")
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}.get(
            name, "numbers with commas"
        )
        msg = f"--set {text}: must be {wanted}"
        raise SettingsError(msg) from None


@dataclass(frozen=True, eq=False)
class Pool:
    """Training pictures uint8 (n, side, side, 3) and their masks bool (n, side, side)."""

    images: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def train_unet(
    normals: Pool,
    defects: Sequence[Sequence[Pool]],
    plan: Plan,
    seed: int,
    *,
    look: Callable[[int, UNet], None] | None = None,
    after_step: Callable[[float], None] | None = None,
) -> UNet:
    """A U-Net after the plan's last step, ready to test.

    Half of every batch is normal with an empty mask. The other half is drawn evenly over the defect types, and within a
    type evenly over its pools (real shots, generated pairs), so that a thousand generated pairs do not drown eight
    shots. `look(step, network)` is called `plan.looks` times, at even distances, the last after the last step.
    Raises TrainingStopped when the loss is no number.
    """
    network = _fresh(lambda: UNet(plan.widths), seed, "unet")
    looks = set(np.linspace(0, plan.steps, plan.looks + 1).round().astype(int)[1:].tolist())

    def loss(step: int) -> Tensor:
        images, masks = _draw_pairs(normals, defects, plan, seed, step)
        logits = network(_to_input(images, network))
        return focal_loss(logits, torch.from_numpy(masks).long().to(logits.device))

    def after(step: int, value: float) -> None:
        if after_step:
            after_step(value)
        if look and step in looks:
            look(step, network.eval())
            network.train()

    _fit(network, loss, plan.steps, plan.learning_rate, after)
    return network


def train_resnet(
    pictures: Sequence[Sequence[np.ndarray]],
    plan: Plan,
    seed: int,
    *,
    after_step: Callable[[float], None] | None = None,
) -> ResNet18:
    """A ResNet-18 that tells defect types apart: a list of pools uint8 (n, side, side, 3) for each type, in order."""
    network = _fresh(lambda: ResNet18(len(pictures), plan.resnet_width), seed, "resnet")
    kinds_of = [[Pool(pool, np.zeros(pool.shape[:3], dtype=bool)) for pool in pools] for pools in pictures]

    def draw(step: int) -> tuple[np.ndarray, np.ndarray]:
        random = numpy_stream(seed, "resnet", step)
        kinds = (random.permutation(plan.resnet_batch) + step) % len(kinds_of)
        drawn = [_pick(kinds_of[kind], random, plan.flips)[0] for kind in kinds]
        return np.stack(drawn), kinds

    def loss(step: int) -> Tensor:
        images, kinds = draw(step)
        logits = network(_to_input(images, network))
        return F.cross_entropy(logits.float(), torch.from_numpy(kinds).to(logits.device))

    _fit(network, loss, plan.resnet_steps, plan.resnet_rate, lambda _, value: after_step(value) if after_step else None)
    return network


def predict_maps(network: UNet, images: np.ndarray, batch: int = 16) -> np.ndarray:
    """Anomaly maps float32 (n, side, side) in 0..1 of pictures uint8 (n, side, side, 3)."""
    return _predict(network, images, batch, anomaly_maps)


def predict_types(network: ResNet18, images: np.ndarray, batch: int = 16) -> np.ndarray:
    """Number (n,) of the type that each picture is taken for."""
    return _predict(network, images, batch, lambda logits: logits.float().argmax(dim=1))


def _predict(network: nn.Module, images: np.ndarray, batch: int, read: Callable[[Tensor], Tensor]) -> np.ndarray:
    network.eval()
    with torch.inference_mode(), _half_precision(network):
        parts = [images[start : start + batch] for start in range(0, len(images), batch)]
        return np.concatenate([read(network(_to_input(part, network))).cpu().numpy() for part in parts])


def _fresh(make: Callable[[], Network], seed: int, name: str) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "inspector", name))
        network = make()
    # With bfloat16 a step takes 0.16 s so, and 0.25 s in the usual order (batch 8, one thread; 0.36 s in float32).
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (torch's stubs do not know it)
    return network.to(best_device())


def _fit(
    network: nn.Module,
    loss_of: Callable[[int], Tensor],
    steps: int,
    rate: float,
    after: Callable[[int, float], None],
) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    falls = [round(0.8 * steps), round(0.9 * steps)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, gamma=0.2)
    network.train()
    for step in range(steps):
        with _half_precision(network):
            loss = loss_of(step)
        value = loss.item()
        if not np.isfinite(value):
            msg = (
                f"the inspector's loss is {value} at step {step}; lower its learning rate with --set learning_rate=..."
            )
            raise TrainingStopped(msg)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        after(step + 1, value)


@contextmanager
def _half_precision(network: nn.Module) -> Iterator[None]:
    """Convolutions in bfloat16 where the processor or GPU has it, weights and optimiser in float32."""
    device = next(network.parameters()).device.type
    able = device == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=able):
        yield


def _draw_pairs(
    normals: Pool, defects: Sequence[Sequence[Pool]], plan: Plan, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """A batch of pictures uint8 (b, side, side, 3) and masks bool (b, side, side), a function of seed and step."""
    random = numpy_stream(seed, "unet", step)
    kinds = (random.permutation(plan.batch) + step) % len(defects)
    good = [_pick([normals], random, plan.flips) for _ in range(plan.batch // 2)]
    bad = [_pick(defects[kind], random, plan.flips) for kind in kinds[: plan.batch - len(good)]]
    images, masks = zip(*good, *bad, strict=True)
    return np.stack(images), np.stack(masks)


def _pick(pools: Sequence[Pool], random: np.random.Generator, flips: bool) -> tuple[np.ndarray, np.ndarray]:
    """One picture and its mask, from a pool drawn first; the same number of draws whatever the pools hold."""
    which, place, down, across = random.random(4)
    pool = pools[int(which * len(pools))]
    index = int(place * len(pool))
    flip = (
        slice(None, None, -1 if flips and down < 0.5 else 1),
        slice(None, None, -1 if flips and across < 0.5 else 1),
    )
    return pool.images[index][flip], pool.masks[index][flip]


def _to_input(images: np.ndarray, network: nn.Module) -> Tensor:
    """Float32 (b, 3, h, w) in 0..1 where the network is."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(next(network.parameters()).device)
    return tensor.permute(0, 3, 1, 2).float().div(255)
