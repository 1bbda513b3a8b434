"""The four aspects of a pair that the paper's figure 1 judges by eye, each as one number 0..1.

valid       what lies under the mask differs from the product's good pictures, more than these do among themselves
realistic   the defect looks like the real ones close up, and the picture away from it like good ones
aligned     the mask lies where the picture differs from good ones, and other masks of the same pair say the same
on_object   the share of the mask that lies on the object; a texture fills the picture, so all of it does

No network is needed: all comparisons are of local colours and edges at several scales (see change.GoodPictures).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dualanodiff.change import GoodPictures, Memory, agreement, cells_of
from dualanodiff.data.shots import Shot
from dualanodiff.judge.texture import Texture
from dualanodiff.masks.key import overlap
from dualanodiff.masks.saliency import NO_OBJECT, object_mask

ASPECTS = ("valid", "realistic", "aligned", "on_object")
QUANTILE = 0.02
"""The share of real defects that may fail each threshold."""
_SLACK = 0.2
"""Real defects are taken to vary at least this much, however alike the few known ones are."""
REAL = 0.5
"""The threshold of realism, whose scale is fitted to the real pictures."""
_STRICTEST = 0.6
"""Nothing is unreal that is not this much farther off than usual: 1 / 0.6 times."""
_PLACE = 15.0
"""How much places count on products that always lie alike."""
BLUR = 1.5
"""Deviation in pixels at 128 of a blur that must be seen."""
_SEEN = 0.3
"""Share of the object that a mask must leave for its texture to be judged."""
_CELLS = 200
"""Descriptors kept of one real defect."""
_LOOKS = 8
"""Shots and good pictures that are looked at to choose between two ways."""


def calibrate(real: Sequence[float], controls: Sequence[float] = (), quantile: float = QUANTILE) -> float:
    """The threshold that all but a share `quantile` of real defects are expected to reach.

    The fewer are known, the lower it is laid below what they reached. Where controls stay below that, all but the same
    share, it is laid a quarter of the way from these to the real ones: there are many controls and few shots.

    >>> calibrate([0.9, 0.9, 0.9, 0.9], controls=[0.4])
    0.5
    """
    middle, low = np.median(real), np.quantile(real, quantile)
    bound = low - max(middle - low, _SLACK) / np.sqrt(len(real))
    if len(controls) and (high := np.quantile(controls, 1 - quantile)) < bound:
        bound = high + (bound - high) / 4
    return round(float(np.clip(bound, 0.01, 1.0)), 4)


@dataclass(frozen=True)
class Aspects:
    """Each 0..1, more is better."""

    valid: float
    realistic: float
    aligned: float
    on_object: float


class Gauge:
    """Measures pairs of one product against its good pictures uint8 (s, s, 3) and its real defects."""

    def __init__(
        self, normals: Sequence[np.ndarray], shots: Sequence[Shot], doubles: Sequence[frozenset[int]] | None = None
    ) -> None:
        """`doubles` are for each shot the indices of all that show its defect, itself among them."""
        self.shots = list(shots)
        self._doubles = doubles or [frozenset({i}) for i in range(len(shots))]
        self.good = self._look(normals)
        # Where parts lie alike, any mask on the part would seem right against a plain ground.
        spare = np.mean(self.good.spare, axis=0)
        self._usual = (
            ndimage.uniform_filter(spare, 1 + spare.shape[0] // 16) if self.good.place else np.zeros_like(spare)
        )
        self.changes = [self.good.change(shot.image) for shot in self.shots]
        """Change maps of the shots."""
        self._defects = [self._inside(shot.image, shot.mask) for shot in self.shots]
        self._banks: dict[frozenset[int], Memory | None] = {}
        strange = [self._strangeness(x, self._doubles[i]) for i, x in enumerate(self._defects)]
        self._usual_strangeness = float(np.median([each for each in strange if each > 0] or [0.0]))
        self._usual_rest = float(np.median([change.mean() for change in self.good.spare]))
        self.texture = Texture(normals)
        self._softest = self._texture_limit(normals)
        self._powers = np.ones(2)
        real = np.array(
            [
                self._likeness(shot.mask, self.changes[i], x, self._doubles[i])
                for i, (shot, x) in enumerate(zip(self.shots, self._defects, strict=True))
            ]
        )
        good = [_ratio(self._usual_rest + 0.05, float(change.mean()) + 0.05) for change in self.good.spare]
        bounds = [_least(real[:, 0]), _least(np.append(real[:, 1], good))]
        self._powers = np.log(0.5) / np.log(np.clip(bounds, 0.02, _STRICTEST))
        """What makes REAL of the least that is expected of real pictures, for the defect and for the places around it."""
        objects = [object_mask(rgb, None) for rgb in normals[:: max(1, len(normals) // _LOOKS)]]
        found = [mask for mask, source in objects if not source.endswith(NO_OBJECT)]
        self.object = np.mean(found, axis=0) > 0.5 if 2 * len(found) > len(objects) else None
        """Where the good pictures mostly have their object; None for a texture."""

    def _look(self, normals: Sequence[np.ndarray]) -> GoodPictures:
        """Good pictures by what they show alone, or by where as well: whichever finds the shots' defects better."""

        def finds(good: GoodPictures) -> float:
            some = self.shots[:: max(1, len(self.shots) // _LOOKS)]
            return float(np.mean([agreement(good.change(shot.image), shot.mask) for shot in some]))

        return max((GoodPictures(normals, place=place) for place in (0.0, _PLACE)), key=finds)

    def measure(
        self,
        image: np.ndarray,
        mask: np.ndarray,
        *,
        others: Sequence[np.ndarray] = (),
        attention: np.ndarray | None = None,
    ) -> Aspects:
        """The aspects of a picture uint8 (s, s, 3) with its mask bool (s, s); all 0 for an empty mask.

        `others` are masks of the same pair from other sources; `attention` is what the sampler looked at, uint8 (s, s).
        """
        if not mask.any():
            return Aspects(0.0, 0.0, 0.0, 0.0)
        change = self.good.change(image)
        aligned = self.aligned(change, mask)
        # Nothing of a pair disagrees with itself: each further source can only take away.
        opinions = [overlap(mask, other) for other in others]
        if attention is not None:
            opinions.append(max(0.0, 2 * agreement(attention.astype(float), mask) - 1))
        for opinion in opinions:
            aligned *= (1 + opinion) / 2
        cells = self._inside(image, mask)
        realistic = self._realistic(image, mask, change, cells, frozenset())
        return Aspects(self.valid(change, mask), realistic, aligned, self.on_object(image, mask))

    def measure_shot(self, index: int) -> Aspects:
        """The aspects of a shot, judged as if it and its doubles were not among the shots."""
        shot, change = self.shots[index], self.changes[index]
        return Aspects(
            self.valid(change, shot.mask),
            self._realistic(shot.image, shot.mask, change, self._defects[index], self._doubles[index]),
            self.aligned(change, shot.mask),
            self.on_object(shot.image, shot.mask),
        )

    def valid(self, change: np.ndarray, mask: np.ndarray) -> float:
        """Change under the mask against that of good pictures there: 0.5 is as much as these, 0.75 three times as much."""
        usual = float(np.median([_strength(each, mask) for each in self.good.spare]))
        strength = _strength(change, mask)
        return strength / max(strength + usual, 1e-6)

    def aligned(self, change: np.ndarray, mask: np.ndarray) -> float:
        """Mean of the agreement, stretched so that chance is 0, and of the share of the most changed that is marked."""
        if mask.all():
            return 0.0
        change = change - self._usual
        ranks = max(0.0, 2 * agreement(change, mask) - 1)
        most = change >= np.partition(change, -int(mask.sum()), axis=None)[-int(mask.sum())]
        reach = 1 + 2 * max(1, mask.shape[0] // 64)
        near = ndimage.maximum_filter(mask, reach)
        return float(ranks + (most & near).sum() / most.sum()) / 2

    def on_object(self, image: np.ndarray, mask: np.ndarray) -> float:
        """Share of the mask on the picture's own object, or where good pictures have theirs if it shows none; 1 on a texture."""
        if self.object is None:
            return float(mask.any())
        body, source = object_mask(image, None)
        if source.endswith(NO_OBJECT):
            body = self.object
        reach = 1 + 2 * max(1, mask.shape[0] // 64)
        return float((mask & ndimage.maximum_filter(body, reach)).sum() / max(int(mask.sum()), 1))

    def _inside(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Descriptors (n, d) of a defect, at most `_CELLS`."""
        described = self.good.describe(image)
        cells = described[cells_of(mask, described.shape[0])]
        return cells[np.linspace(0, len(cells) - 1, min(_CELLS, len(cells))).round().astype(int)]

    def _strangeness(self, cells: np.ndarray, without: frozenset[int]) -> float:
        """Mean distance of a defect's descriptors from the nearest of the shots' defects; 0 where there is no shot."""
        if without not in self._banks:
            kept = [each for i, each in enumerate(self._defects) if i not in without]
            self._banks[without] = Memory(np.concatenate(kept)) if kept else None
        bank = self._banks[without]
        return float(bank.distances(cells).mean()) if bank else 0.0

    def _realistic(
        self, image: np.ndarray, mask: np.ndarray, change: np.ndarray, cells: np.ndarray, without: frozenset[int]
    ) -> float:
        """The weakest part of realism: 1 as usual for real pictures, 0.5 the least that is expected of them."""
        likeness = (self._likeness(mask, change, cells, without) ** self._powers).min()
        far = self._texture_distance(image, mask)
        return float(min(likeness, 1.0 if far is None else 0.5 ** ((far / self._softest) ** 2)))

    def _likeness(
        self, mask: np.ndarray, change: np.ndarray, cells: np.ndarray, without: frozenset[int]
    ) -> tuple[float, float]:
        """How like real ones the defect is, and the places away from it; 1 as usual, 0.5 twice as far off."""
        defect, rest = _ratio(self._usual_strangeness, self._strangeness(cells, without)), _away_from(mask)
        if rest.mean() < 0.05:
            return defect, 1.0
        return defect, _ratio(self._usual_rest + 0.05, float(change[rest].mean()) + 0.05)

    def _texture_distance(self, image: np.ndarray, mask: np.ndarray) -> float | None:
        """How unlike good pictures' the texture away from the mask is; None where too little of the object is seen."""
        rest, body = _away_from(mask), object_mask(image, None)[0]
        if rest.mean() < 0.05 or (rest & body).sum() < _SEEN * body.sum():
            return None
        return self.texture.distance(image, rest)

    def _texture_limit(self, normals: Sequence[np.ndarray]) -> float:
        """The distance from which a texture is none of a real picture: half-way from these to blurred ones.

        Where blurred ones are no farther off, as on products whose pictures show very different amounts, the real ones decide.
        """
        nothing, blur = np.zeros(normals[0].shape[:2], bool), BLUR * normals[0].shape[0] / 128
        some = [(shot.image, shot.mask) for shot in self.shots] + [(rgb, nothing) for rgb in normals[::4]]
        soft = [(ndimage.gaussian_filter(rgb, (blur, blur, 0)), mask) for rgb, mask in some]
        real, blurred = (
            [far for case in cases if (far := self._texture_distance(*case)) is not None] for cases in (some, soft)
        )
        # The fewer real pictures are known, the farther off one more may be.
        farthest = max(1.0, max(real) * (1 + 1 / np.sqrt(len(real)))) if real else 1.0
        nearest = float(np.quantile(blurred, 0.1)) if blurred else 0.0
        return float(max(farthest, (farthest + nearest) / 2))


def _away_from(mask: np.ndarray) -> np.ndarray:
    """Where a picture is to be judged apart from its defect."""
    return ~np.asarray(ndimage.maximum_filter(mask, 1 + 2 * max(1, mask.shape[0] // 32)), dtype=bool)


def _least(likeness: np.ndarray) -> float:
    """The likeness expected of one more real picture: as far below the lowest known as this is below the middle."""
    low = float(np.quantile(likeness, QUANTILE))
    return low * low / max(float(np.median(likeness)), 1e-6)


def _strength(change: np.ndarray, mask: np.ndarray) -> float:
    """Mean change of the more changed half of a mask: the borders of real masks are generous."""
    values = np.sort(np.maximum(change[mask], 0))
    return float(values[len(values) // 2 :].mean()) if values.size else 0.0


def _ratio(usual: float, found: float) -> float:
    """1 up to what is usual, then falling as its inverse; 1 where nothing is known to be usual."""
    return min(1.0, usual / found) if usual > 0 and found > 0 else 1.0
