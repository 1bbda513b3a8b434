"""Pictures of parts with defects and their exact masks: endless for pre-training, and three demo products on disk."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dualanodiff.errors import DataError
from dualanodiff.images import write_png
from dualanodiff.seeds import numpy_stream
from dualanodiff.synth.defects import DEFECTS, size_factor, suits
from dualanodiff.synth.designs import cap_plastic, keyed_washer, ribbed_tile, starred_cap, turned_steel
from dualanodiff.synth.marks import Place, outline, tapered, walk
from dualanodiff.synth.noise import (
    Canvas,
    Rgb,
    between,
    colour,
    noise,
    pick,
    to_bytes,
)
from dualanodiff.synth.objects import SHAPES, Shape
from dualanodiff.synth.photograph import Bytes, Camera, Mask, draw_camera, draw_grain, photograph
from dualanodiff.synth.scene import Pose, Scene, colour_word, draw_ground, draw_pose, frame_scene, object_scene
from dualanodiff.synth.surfaces import FRAMES, Material

Generator = np.random.Generator


@dataclass(frozen=True)
class Triple:
    """A picture with a defect, its exact mask, and the same picture without the defect."""

    image: Bytes
    mask: Mask
    normal: Bytes
    object_mask: Mask
    caption: str
    """Says all: "a brushed steel disc on white with scratch"."""
    normal_caption: str
    defect_caption: str
    material: str
    shape: str
    defect: str


def draw_scene(generator: Generator, size: int) -> Scene:
    """Any good part: a material that fills the frame, or a shape on a ground."""
    if generator.random() < 0.45:
        return frame_scene(generator, generator, size, pick(generator, FRAMES), draw_pose(generator))
    return _object(generator, size)


def _object(generator: Generator, size: int) -> Scene:
    name = pick(generator, tuple(SHAPES))
    shape, materials = SHAPES[name]
    pose, ground = draw_pose(generator), draw_ground(generator, generator, size)
    return object_scene(generator, generator, size, name, shape, pick(generator, materials), pose, ground)


def draw_triple(generator: Generator, size: int = 128) -> Triple:
    """Any part with any defect that shows. The generator alone decides the picture."""
    while True:
        scene, camera = draw_scene(generator, size), draw_camera(generator, generator, size)
        scene = replace(scene, tint="") if camera.grey else scene
        names = [name for name in DEFECTS if suits(name, scene)]
        weights = np.array([DEFECTS[name][1] for name in names])
        normal = camera.shoot(scene.rgb)
        for _ in range(4):
            name = str(generator.choice(names, p=weights / weights.sum()))
            area = float(np.clip(np.exp(generator.normal(np.log(0.045), 1.15)) * size_factor(scene), 0.0015, 0.22))
            spot = {"chipped edge": "edge", "missing print": "print"}.get(name, "part")
            count = pick(generator, (1, 1, 1, 1, 1, 1, 2, 3))
            made = photograph(
                generator, generator, scene, camera, normal, DEFECTS[name][0], area, spot=spot, count=count
            )
            if made is not None:
                return Triple(
                    made.image,
                    made.mask,
                    normal,
                    scene.part > 0.5,
                    f"{scene.caption} with {made.caption}",
                    scene.caption,
                    made.caption,
                    scene.material,
                    scene.shape,
                    name,
                )


KEYS = (
    "#000000",
    "#808080",
    "#ffffff",
    "#00b140",
    "#00ff00",
    "#ff00ff",
    "#0000ff",
    "#0047bb",
    "#00ffff",
    "#ffff00",
    "#ff0000",
)
"""Ground colours that a part branch is often asked for."""


def _flat_ground(generator: np.random.Generator) -> Rgb:
    """A ground colour (3, 1, 1): half the time a usual key colour, else black, grey, white or any hue."""
    if generator.random() < 0.5:
        return np.array(list(bytes.fromhex(pick(generator, KEYS)[1:])), np.float32)[:, None, None] / 255
    saturation = pick(generator, (0.0, 0.5, 0.8, 1.0))
    return colour(
        between(generator, 0, 1),
        saturation,
        between(generator, 0, 1) if saturation == 0 else between(generator, 0.3, 1),
    )


def draw_part_on_ground(generator: np.random.Generator, size: int = 128) -> tuple[Bytes, str]:
    """A defect, torn pieces, a whole part or a mark on a flat ground of any one colour, and its caption.

    The ground is exactly one colour and the edge is hard, as in a shot's part (Paper sec. 3.2: I_a = I * M).
    """
    kind = pick(generator, ("defect", "defect", "defect", "pieces", "pieces", "thing", "mark"))
    if kind == "defect":
        triple = draw_triple(generator, size)
        rgb, mask, name = triple.image, triple.mask, triple.defect_caption
    elif kind == "thing":
        scene = _object(generator, size)
        rgb, mask, name = (
            to_bytes(scene.rgb),
            scene.part > 0.5,
            " ".join(word for word in (scene.tint, scene.material, scene.shape) if word),
        )
    else:
        canvas = Canvas(size)
        for _ in range(int(generator.integers(1, 4))):
            place = Place(
                between(generator, -0.7, 0.7),
                between(generator, -0.7, 0.7),
                float(np.exp(generator.normal(np.log(0.03), 1))),
            )
            if kind == "pieces":
                canvas.polygon(outline(generator, place, 0.6, pick(generator, (0.0, 0.1)), 26))
            else:
                tapered(
                    canvas,
                    walk(generator, place, between(generator, 0.3, 1.4), 2.0, pick(generator, (0.0, 0.4))),
                    between(generator, 0.02, 0.08),
                )
        surface = pick(generator, FRAMES)(generator, generator, size)
        lit = np.float32(between(generator, 0.4, 1.2)) * (1 + np.float32(0.2) * noise(generator, size, 3))
        rgb, mask, name = (
            to_bytes(surface.rgb * lit),
            canvas.field() > 0.5,
            f"{surface.name} piece" if kind == "pieces" else "mark",
        )
    while True:
        ground = _flat_ground(generator)
        flat = to_bytes(ground)[0, 0]
        if not mask.any() or np.abs(rgb[mask].astype(np.int16) - flat).mean() > 30 or generator.random() < 0.1:
            break
    return np.where(mask[..., None], rgb, flat), f"{name} on flat {colour_word(ground)}"


DESIGN = 6
"""Seed of the demo products' designs; the pictures' own seed is the user's."""


@dataclass(frozen=True)
class Flaw:
    """One defect type of a product: which defect, how large, where."""

    kind: str
    """A name in DEFECTS."""
    low: float
    high: float
    """Smallest and largest share of the picture."""
    spot: str = "part"
    look: int = 0
    """Which of the endless looks of that kind (tone, width): all pictures of the type share it."""


@dataclass(frozen=True)
class Product:
    """A demo product as on a production line: one design, small differences of place, turn, light and grain.

    Not among the parts of `draw_triple`: its shape or material is its own (not in SHAPES or FRAMES), and its design comes from
    streams named after it, so that a base trained on `draw_triple` has never seen it.
    """

    name: str
    caption: str
    """What a good part's picture shows, in the words of draw_triple's captions."""
    flaws: dict[str, Flaw]
    """Its defect types by name."""
    material: Material
    shape: Shape | None
    """None: the material fills the frame."""
    ground: Rgb
    turn: float
    """Largest turn either way, radians."""

    def _scene(self, shot: Generator, size: int) -> Scene:
        form = numpy_stream(DESIGN, "demo", self.name, "design")
        pose = Pose(
            x=between(shot, -0.03, 0.03),
            y=between(shot, -0.03, 0.03),
            turn=between(shot, -self.turn, self.turn),
            scale=0.8 * between(shot, 0.985, 1.015),
            squeeze=1.0,
            light=-2.3 + between(shot, -0.12, 0.12),
            brightness=between(shot, 0.96, 1.04),
        )
        if self.shape is None:
            return frame_scene(form, shot, size, self.material, pose, plain=True)
        ground = self.ground * (1 + np.float32(0.015) * noise(shot, size, 60)), ""
        return object_scene(form, shot, size, self.name, self.shape, self.material, pose, ground, plain=True)

    def draw_normal(self, shot: Generator, size: int) -> Bytes:
        """A good part."""
        return _line_camera(shot, size).shoot(self._scene(shot, size).rgb)

    def draw_defective(self, defect: str, shot: Generator, size: int) -> tuple[Bytes, Mask]:
        """A part with that defect, and the mask."""
        flaw = self.flaws[defect]
        while True:
            scene, camera = self._scene(shot, size), _line_camera(shot, size)
            look = numpy_stream(DESIGN, "demo", self.name, defect, flaw.look)
            area = float(np.exp(between(shot, np.log(flaw.low), np.log(flaw.high))))
            draw, normal = DEFECTS[flaw.kind][0], camera.shoot(scene.rgb)
            made = photograph(look, shot, scene, camera, normal, draw, area, spot=flaw.spot)
            if made is not None:
                return made.image, made.mask


def _line_camera(shot: Generator, size: int) -> Camera:
    """The camera over the production line."""
    return Camera(0.4 * size / 128, draw_grain(shot, size, 0.006), np.ones((3, 1, 1), np.float32), False)


def demo_products() -> dict[str, Product]:
    """The demo's products by name."""
    products = (
        Product(
            name="washer",
            caption="a steel washer on white",
            flaws={
                "scratch": Flaw("scratch", 0.012, 0.035, look=37),
                "chip": Flaw("chipped edge", 0.015, 0.06, "edge", look=3),
            },
            material=turned_steel,
            shape=keyed_washer,
            ground=colour(0.6, 0.02, 0.93),
            turn=0.1,
        ),
        Product(
            name="tile",
            caption="a grey ceramic tile surface",
            flaws={"crack": Flaw("crack", 0.01, 0.03, look=9), "pit": Flaw("blowhole", 0.005, 0.02, look=3)},
            material=ribbed_tile,
            shape=None,
            ground=colour(0, 0, 0.1),
            turn=0.0,
        ),
        Product(
            name="cap",
            caption="an orange plastic cap on black",
            flaws={"stain": Flaw("stain", 0.02, 0.08, look=5), "dent": Flaw("dent", 0.03, 0.09, look=6)},
            material=cap_plastic,
            shape=starred_cap,
            ground=colour(0.6, 0.2, 0.1),
            turn=0.12,
        ),
    )
    return {product.name: product for product in products}


def write_product(
    folder: Path,
    product: Product,
    *,
    normals: int,
    defects: dict[str, int] | int,
    size: int,
    seed: int,
    test_normals: int = 4,
) -> None:
    """Write the product in MVTec layout: train/good, test/good, and test/<defect> with masks in ground_truth/<defect>.

    `defects` counts the pictures of each defect type, or of all types alike. Picture k is the same whatever the counts.
    Raises DataError for a defect type that the product does not have.
    """
    counts = dict.fromkeys(product.flaws, defects) if isinstance(defects, int) else defects
    unknown = [name for name in counts if name not in product.flaws]
    if unknown:
        msg = f"demo product {product.name}: no defect type {unknown[0]!r}; choose from {', '.join(product.flaws)}"
        raise DataError(msg)

    def shot(*names: str | int) -> Generator:
        return numpy_stream(seed, "demo", product.name, *names)

    for split, count in (("train", normals), ("test", test_normals)):
        for k in range(count):
            write_png(folder / split / "good" / f"{k:03d}.png", product.draw_normal(shot(split, k), size))
    for defect, count in counts.items():
        for k in range(count):
            image, mask = product.draw_defective(defect, shot(defect, k), size)
            write_png(folder / "test" / defect / f"{k:03d}.png", image)
            write_png(folder / "ground_truth" / defect / f"{k:03d}_mask.png", mask)
