"""Make defects on good parts: place -> held denoising -> mask -> composition -> judgement, again until it is as asked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from dualanodiff import images
from dualanodiff.diffusion.sampling import Background
from dualanodiff.latents import allowed_cells, background_picture, encode_pictures
from dualanodiff.masks.remake import MaskMaker
from dualanodiff.masks.result import MaskResult
from dualanodiff.onto.compose import Composed, Palette, compose
from dualanodiff.onto.hold import Held
from dualanodiff.onto.judging import Verdict, judge
from dualanodiff.onto.places import ObjectFinder, Place, Shapes, draw_place, extent, find_object
from dualanodiff.onto.strange import colors_of, strangeness
from dualanodiff.onto.window import Window
from dualanodiff.onto.wishes import Wishes
from dualanodiff.sampler import PairSampler
from dualanodiff.seeds import numpy_stream, stream_seed
from dualanodiff.settings import Settings
from dualanodiff.storage import sha256

_FIRMER = 0.15
"""Each further attempt leaves out so much more of the denoising's beginning, and so keeps nearer to the shape."""
_FIRMEST = 0.6
_STRETCH = 2.5
"""An attempt is at most so much larger or smaller than the one before, and a change so much stronger or weaker."""


@dataclass(frozen=True)
class Kind:
    """One fitted run as a maker of its type of defect."""

    run: str
    sampler: PairSampler
    settings: Settings
    mask_maker: MaskMaker
    shapes: Shapes
    key: tuple[int, int, int]
    side: int
    """Of the model's pictures, in pixels."""
    find_object: ObjectFinder
    background_scale: float | None = None
    """Of the background's latents, where the run compensates for it."""

    @cached_property
    def palette(self) -> Palette:
        """The shots' colours."""
        return Palette.of(self.shapes.colors)

    @cached_property
    def ground(self) -> Tensor:
        """(1, c, h, w): latents of the bare key colour."""
        picture = np.empty((self.side, self.side, 3), np.uint8)
        picture[:] = self.key
        return encode_pictures(self.sampler.base, [picture])


@dataclass
class Part:
    """A good part on its way to a pair: what it is now, and what was done to it."""

    index: int
    good: np.ndarray
    facts: dict[str, Any]
    image: np.ndarray
    part: np.ndarray
    mask: np.ndarray
    attention: np.ndarray | None = None
    found: list[MaskResult] = field(default_factory=list)
    defects: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mask_result(self) -> MaskResult:
        """The masks of all its defects as one."""
        shown = [result for result in self.found if not result.empty]
        if not shown:
            return MaskResult.nothing(self.mask.shape, self.found[0].source, self.found[0].threshold)
        return MaskResult.found(self.mask, shown[0].source, min(item.score for item in shown), shown[0].threshold)


@dataclass
class _Job:
    """One defect to be made on one part, and the best attempt so far."""

    part: Part
    number: int
    kind: Kind
    region: np.ndarray
    frame: tuple[slice, slice] | None
    object: np.ndarray | None
    bounds: np.ndarray | None
    """The object, where defects are to lie on it."""
    asked: dict[str, float]
    stretch: float = 1.0
    draw: int = 0
    """Which place and noise: one that is only too large or small is made again of the same, stretched."""
    attempts: int = 0
    best: "_Attempt | None" = None

    def alike(self) -> tuple[str, bool]:
        """Jobs of which this is the same are made together: the run, and whether what it drew was too pale to see."""
        return self.kind.run, self.best is not None and not self.best.verdict.met["visible"]


@dataclass(frozen=True)
class _Attempt:
    image: np.ndarray
    part: np.ndarray
    result: MaskResult
    """Its mask at the picture's own size."""
    attention: np.ndarray | None
    place: Place
    collar: int
    verdict: Verdict


def make_parts(kinds: Sequence[tuple[Kind, float]], wishes: Wishes, indices: Iterable[int], seed: int) -> list[Part]:
    """The pairs of these indices; `kinds` are runs and the shares of the defects that they make.

    Pair i of a seed is the same whatever the batch, as all it depends on is drawn from streams of its index.
    """
    parts = [_begin(wishes, index, seed, kinds[0][0].key) for index in indices]
    for number in range(wishes.defects):
        jobs = [_job(kinds, wishes, part, number, seed) for part in parts]
        for attempt in range(max(job.kind.settings.onto.attempts for job in jobs)):
            open_jobs = [job for job in jobs if job.best is None or job.best.verdict.faults]
            open_jobs = [job for job in open_jobs if attempt < job.kind.settings.onto.attempts]
            order = sorted(open_jobs, key=_Job.alike)
            for _, group in groupby(order, key=_Job.alike):
                _attempt(list(group), wishes, attempt, seed)
        for job in jobs:
            _keep(job, wishes)
    return parts


def _begin(wishes: Wishes, index: int, seed: int, key: tuple[int, int, int]) -> Part:
    """The good picture of an index: all of them in a drawn order, then all again in another."""
    count = len(wishes.goods)
    path = wishes.goods[numpy_stream(seed, "goods", index // count).permutation(count)[index % count]]
    good = images.read_rgb(path)
    blank = np.empty_like(good)
    blank[:] = key
    facts = {"good": str(path), "sha256": sha256(path), "size": [good.shape[1], good.shape[0]]}
    return Part(index, good, facts, good, blank, np.zeros(good.shape[:2], dtype=bool))


def _job(kinds: Sequence[tuple[Kind, float]], wishes: Wishes, part: Part, number: int, seed: int) -> _Job:
    random = numpy_stream(seed, "kind", part.index, number)
    kind = kinds[int(random.choice(len(kinds), p=[share for _, share in kinds]))][0]
    asked = {
        name: span.draw(numpy_stream(seed, name, part.index, number))
        for name, span in (("area", wishes.area), ("contrast", wishes.contrast))
        if span is not None
    }
    found = find_object(part.good, kind.find_object)
    bound = wishes.where == "object" or (wishes.where == "shots" and kind.shapes.on_object)
    given = wishes.region_of(part.good.shape, Path(part.facts["good"]))
    region = np.ones(part.mask.shape, dtype=bool) if given is None else given
    bounds = found if found is not None and bound and (region & found).any() else None
    region = region if bounds is None else region & bounds
    if part.mask.any():
        near = np.asarray(ndimage.binary_dilation(part.mask, iterations=4), dtype=bool)
        free = region & ~near
        region = free if free.any() else region
    everything = (slice(0, part.mask.shape[0]), slice(0, part.mask.shape[1]))
    frame = (everything if found is None else extent(found)) if wishes.where == "shots" and given is None else None
    return _Job(part, number, kind, region, frame, found, bounds, asked)


def _attempt(jobs: list[_Job], wishes: Wishes, attempt: int, seed: int) -> None:
    """One attempt at each of these jobs of one kind, in batches; the better of it and the best before is kept."""
    kind = jobs[0].kind
    size = kind.settings.sample.batch_size
    strange = strangeness(kind.shapes.colors, colors_of(tuple(wishes.goods))) >= kind.settings.onto.strange
    shown = strange or jobs[0].alike()[1]
    for begin in range(0, len(jobs), size):
        batch = jobs[begin : begin + size]
        places = [_draw_place(job, wishes, seed) for job in batch]
        names = [(job.part.index, job.number, job.draw) for job in batch]
        seen = [place.window.see(job.part.image) for job, place in zip(batch, places, strict=True)]
        latents, plain, attention = _denoise(kind, batch, places, seen, attempt, names, seed, shown=shown)
        pictures = [_levels(kind.sampler.base.decode(rows)) for rows in (*latents, plain)]
        for row, (job, place) in enumerate(zip(batch, places, strict=True)):
            drawn = (pictures[0][row], pictures[2][row], pictures[1][row])
            lit = shown and not strange  # the part's own colours, which were learned in other light
            _try(job, wishes, place, drawn, None if attention is None else attention[row], lit=lit)


def _draw_place(job: _Job, wishes: Wishes, seed: int) -> Place:
    kind, onto = job.kind, job.kind.settings.onto
    crop = onto.view == "crop" or (onto.view == "auto" and job.object is None)
    share = job.asked["area"] / wishes.unit / job.region.size if "area" in job.asked else None
    return draw_place(
        numpy_stream(seed, "place", job.part.index, job.number, job.draw),
        job.part.image,
        kind.shapes,
        kind.key,
        kind.side,
        region=job.region,
        frame=job.frame,
        share=share,
        stretch=job.stretch,
        smallest=onto.smallest if crop else 0.0,
        flips=(kind.settings.data.flip_horizontal, kind.settings.data.flip_vertical),
    )


def _denoise(
    kind: Kind,
    batch: list[_Job],
    places: list[Place],
    seen: list[np.ndarray],
    attempt: int,
    names: list[tuple[int, int, int]],
    seed: int,
    *,
    shown: bool,
) -> tuple[Tensor, Tensor, np.ndarray | None]:
    """Latents of image and part (2, B, c, h, w), of the good pictures (B, c, h, w), and attention maps."""
    sampler, onto = kind.sampler, kind.settings.onto
    sample = replace(kind.settings.sample, inclusion=onto.inclusion if shown else 0.0)
    base, device = sampler.base, sampler.text.device
    plain = encode_pictures(base, seen).to(device)
    hint = encode_pictures(base, [place.hint for place in places]).to(device)
    allowed = allowed_cells([place.allowed for place in places], plain).to(device)
    held = Held(plain, kind.ground.to(device), allowed)
    background = None
    if kind.background_scale is not None:
        whole = np.ones((kind.side, kind.side), dtype=bool)
        objects = [
            whole if job.object is None else place.window.see_mask(job.object)
            for job, place in zip(batch, places, strict=True)
        ]
        pictures = [background_picture(rgb, found) for rgb, found in zip(seen, objects, strict=True)]
        clean = encode_pictures(base, pictures).to(device) * kind.background_scale
        background = Background(clean, sampler.noise(seed, [("onto background", *name) for name in names])[0])
    latents, attention = sampler.denoise(
        sampler.noise(seed, [("onto", *name) for name in names]),
        torch.stack([plain, hint]),
        sample,
        background=background,
        adjust_clean=held.adjust_clean(onto.freedom),
        begin=min(_FIRMEST, onto.begin + _FIRMER * attempt),
        record_attention=kind.settings.mask.method == "attention",
    )
    latents, _ = sampler.show_part(latents, sample)
    return torch.stack([held.near(latents[0]), latents[1]]), plain, attention


def _try(
    job: _Job,
    wishes: Wishes,
    place: Place,
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
    attention: np.ndarray | None,
    *,
    lit: bool,
) -> None:
    """Compose and judge one attempt; `drawn` is the picture with and without the defect, and the part; `lit` as the place is."""
    job.attempts += 1
    kind, good = job.kind, job.part.image
    found = kind.mask_maker(np.round(drawn[2]).astype(np.uint8), attention)

    def put(gain: float) -> Composed:
        onto = kind.settings.onto
        return compose(
            good,
            place.window,
            *drawn,
            found.mask,
            kind.key,
            collar=onto.collar,
            palette=kind.palette,
            gain=gain,
            tone=place.tone if lit else 1.0,
            within=job.bounds,
        )

    composed, gain = put(1.0), 1.0
    for _ in range(2 if "contrast" in job.asked and composed.contrast > 0 else 0):
        gain = float(np.clip(gain * job.asked["contrast"] / composed.contrast, 1 / _STRETCH, _STRETCH))
        composed = put(gain)
    result = MaskResult.found(composed.mask, found.source, found.score, found.threshold)
    inside = float(job.region[composed.drawn].mean()) if composed.drawn.any() else 0.0
    verdict = judge(result.mask, composed.contrast, inside, job.asked, kind.settings.onto, unit=wishes.unit)
    if verdict.met.get("area") is False and verdict.met["inside"]:
        job.stretch *= float(np.clip(job.asked["area"] / verdict.got["area"], 1 / _STRETCH, _STRETCH))
    else:
        job.draw += 1
    if job.best is None or verdict.badness < job.best.verdict.badness:
        grey = None if attention is None else _bring_back_grey(place.window, attention, good.shape)
        job.best = _Attempt(composed.image, composed.part, result, grey, place, composed.collar, verdict)


def _keep(job: _Job, wishes: Wishes) -> None:
    """Put the best attempt on the part, and write down what was asked and what was got."""
    best, part = job.best, job.part
    assert best is not None
    part.found.append(best.result)
    # An earlier defect's part stays where this one has drawn nothing.
    near = best.result.mask | (best.part != np.array(job.kind.key, np.uint8)).any(axis=-1)
    part.part = np.where(near[..., None], best.part, part.part)
    part.image, part.mask = best.image, part.mask | best.result.mask
    if best.attention is not None:
        part.attention = best.attention if part.attention is None else np.maximum(part.attention, best.attention)
    part.defects.append(
        {
            "run": job.kind.run,
            "window": best.place.window.box,
            "center": list(best.place.center),
            "shape_of": best.place.shot,
            "collar": best.collar,
            "attempts": job.attempts,
            "asked": {name: round(value, 3) for name, value in job.asked.items()},
            "got": {name: round(value, 3) for name, value in best.verdict.got.items()},
            "unit": "mm2" if wishes.scale else "px",
            "met": best.verdict.met,
            "given_up": "; ".join(best.verdict.faults),
        }
    )


def row_of(part: Part, seed: int) -> dict[str, Any]:
    """What the manifest says of a pair beside its mask."""
    return {"seed": stream_seed(seed, "onto", part.index), "onto": {**part.facts, "defects": part.defects}}


def _levels(pictures: Tensor) -> np.ndarray:
    """Float32 (B, h, w, 3) in 0..255 of decoded pictures (B, 3, h, w) in [-1, 1]."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).movedim(1, -1).cpu().numpy()


def _bring_back_grey(window: Window, grey: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    whole = np.zeros(shape[:2], np.uint8)
    whole[window.place] = window.bring_back(grey[..., None].astype(np.float32))[..., 0].round().clip(0, 255)
    return whole
