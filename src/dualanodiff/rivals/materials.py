"""What a rival draws from: shots, good pictures with their objects, textures; and what it gives back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dualanodiff.data.shots import Shot
from dualanodiff.images import read_rgb
from dualanodiff.masks.saliency import U2Net, object_mask
from dualanodiff.synth import surfaces
from dualanodiff.synth.noise import to_bytes

Stream = np.random.Generator

_SURFACES = (
    surfaces.brushed_metal,
    surfaces.rough_metal,
    surfaces.concrete,
    surfaces.granite,
    surfaces.wood,
    surfaces.woven_cloth,
    surfaces.carpet,
    surfaces.leather,
    surfaces.ceramic,
    surfaces.painted,
    surfaces.paper,
    surfaces.rusty_metal,
    surfaces.foam,
    surfaces.printed_board,
    surfaces.perforated_sheet,
)
_KEPT = 256
"""Good pictures that stay in memory."""


@dataclass(frozen=True, eq=False)
class Good:
    """A good picture uint8 (s, s, 3) and where its object is, bool (s, s); all True on a full-frame texture."""

    image: np.ndarray
    body: np.ndarray


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture uint8 (s, s, 3) with a defect and its mask bool (s, s)."""

    image: np.ndarray
    mask: np.ndarray
    facts: dict[str, object] = field(default_factory=dict)
    """What was drawn, for the manifest: the shot and the good picture by name."""


@dataclass(frozen=True, eq=False)
class Materials:
    """All of one defect type, at one size; pictures are read when they are first drawn."""

    shots: Sequence[Shot]
    normals: Sequence[Path]
    size: int
    net: U2Net | None = None
    textures: Sequence[Path] = ()
    """Pictures that serve as textures; none means procedural ones."""
    _goods: dict[Path, Good] = field(default_factory=dict)

    def shot(self, stream: Stream) -> Shot:
        """One shot, all equally likely."""
        return self.shots[int(stream.integers(len(self.shots)))]

    def good(self, stream: Stream) -> tuple[Good, str]:
        """One good picture with its object, and its file's name; all equally likely."""
        path = self.normals[int(stream.integers(len(self.normals)))]
        if path not in self._goods:
            if len(self._goods) >= _KEPT:
                self._goods.clear()
            image = read_rgb(path, size=self.size)
            self._goods[path] = Good(image, object_mask(image, self.net)[0])
        return self._goods[path], path.name

    def texture(self, stream: Stream) -> np.ndarray:
        """A picture uint8 (s, s, 3) that has nothing to do with the product."""
        if self.textures:
            return read_rgb(self.textures[int(stream.integers(len(self.textures)))], size=self.size)
        return drawn_texture(stream, self.size)


def drawn_texture(stream: Stream, size: int) -> np.ndarray:
    """A procedural texture uint8 (s, s, 3), of any of the kinds."""
    surface = _SURFACES[int(stream.integers(len(_SURFACES)))]
    return to_bytes(surface(stream, stream, size).rgb)
