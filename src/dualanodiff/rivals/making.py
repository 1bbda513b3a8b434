"""A rival's pairs in a set folder: the same files as ours, resumable, with its lineage.

Only shots, their masks and train/good are opened; a held-out picture is never read.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualanodiff.data.catalog import choose_name, find_pictures, pick
from dualanodiff.data.keycolor import KEY_COLORS
from dualanodiff.data.shots import Shot, find_shots, part_target
from dualanodiff.errors import DataError
from dualanodiff.grid import pair_grid
from dualanodiff.masks.result import MaskResult
from dualanodiff.masks.saliency import U2Net
from dualanodiff.progress import progress
from dualanodiff.rivals.crop_paste import draw_crop_paste
from dualanodiff.rivals.cutpaste import draw_patch, draw_scar
from dualanodiff.rivals.diffaug import draw_diffaug
from dualanodiff.rivals.draem import draw_draem
from dualanodiff.rivals.materials import Drawn, Materials, Stream
from dualanodiff.rivals.prn import draw_prn
from dualanodiff.runs import file_record, make_lineage
from dualanodiff.seeds import numpy_stream, stream_seed
from dualanodiff.sets import PairSet
from dualanodiff.storage import write_json

SIZE = 256
_KEY = KEY_COLORS["grey"]
_SHEET = 8


@dataclass(frozen=True)
class Generator:
    """How one rival draws a pair, and one line on it."""

    draw: Callable[[Materials, Stream], Drawn]
    about: str
    needs_normals: bool = True


GENERATORS: dict[str, Generator] = {
    "crop-paste": Generator(draw_crop_paste, "real defects on good parts"),
    "cutpaste": Generator(draw_patch, "patches of good parts elsewhere on them"),
    "cutpaste-scar": Generator(draw_scar, "thin patches of good parts elsewhere on them"),
    "draem": Generator(draw_draem, "textures through Perlin masks"),
    "prn": Generator(draw_prn, "real defects and textures, half transparent, on good parts"),
    "diffaug": Generator(draw_diffaug, "the shots, recoloured, shifted, cut and mirrored", needs_normals=False),
}


def make_set(
    name: str,
    data: str | Path,
    *,
    defect: str | None,
    category: str | None = None,
    count: int,
    out: Path,
    seed: int = 0,
    size: int = SIZE,
    shots: str = "first-third",
    textures: Path | None = None,
    object_model: Path | None = None,
) -> dict[str, Any]:
    """Fill the set `out` with pairs of the generator `name` up to `count`, going on where an earlier call stopped.

    Pair i of a seed is the same whatever the count. Returns set, method, count, made, empty, seed and sheet. Raises DataError for an
    unknown name or unusable data, RunError where `out` holds something else.
    """
    generator = find_generator(name)
    product, kind = pick(data, category, defect)
    found = find_shots(data, defect=kind, category=product.name, rule=shots, resolution=size)
    normals = product.normals() if generator.needs_normals else ()
    net = U2Net(object_model) if object_model else None
    materials = Materials(found, normals, size, net, _textures(textures))
    records = _records(found, normals)
    facts = {
        "method": name,
        "seed": seed,
        "category": product.name,
        "defect": kind,
        "inputs": hashlib.sha256(json.dumps([record["sha256"] for record in records]).encode()).hexdigest()[:16],
        "key": list(_KEY),
        "threshold": 0.0,
        "settings": {"size": size, "textures": str(textures or ""), "object_model": str(object_model or "")},
    }
    pairs = PairSet.begin(out, facts)
    lineage = make_lineage(base="", seed=seed, files=records, category=product.name, defect=kind)
    write_json(out / "lineage.json", {"method": name, **lineage})
    done = pairs.done()
    missing = [index for index in range(count) if index not in done]
    with progress(name, count, start=count - len(missing)) as bar:
        for index in missing:
            _add(pairs, index, generator.draw(materials, numpy_stream(seed, "rival", name, index)), name, seed)
            bar.step()
    rows = pairs.rows()
    first = list(rows)[:_SHEET]
    image, mask, part = ([pairs.read(side, index) for index in first] for side in ("image", "mask", "part"))
    sheet = out / "pairs.png"
    pair_grid(image, mask, part, sheet, found[:_SHEET], key=_KEY)
    return {
        "set": str(out),
        "method": name,
        "count": len(rows),
        "made": len(missing),
        "empty": [index for index, row in rows.items() if row["mask_empty"]],
        "seed": seed,
        "sheet": str(sheet),
    }


def find_generator(name: str) -> Generator:
    """The generator of this name; DataError with the nearest name for another."""
    return GENERATORS[choose_name(name, GENERATORS, "method", Path("bench"))]


def _add(pairs: PairSet, index: int, drawn: Drawn, name: str, seed: int) -> None:
    mask = MaskResult.found(drawn.mask, name, 1.0, 0.0)
    row = {"seed": stream_seed(seed, "rival", name, index), "set_seed": seed, "method": name, "drawn": drawn.facts}
    pairs.add(index, drawn.image, part_target(drawn.image, drawn.mask, _KEY), mask, row)


def _records(shots: list[Shot], normals: tuple[Path, ...]) -> list[dict[str, Any]]:
    files = [(path, role) for shot in shots for path, role in ((shot.path, "shot"), (shot.mask_path, "mask"))]
    files += [(path, "normal") for path in normals]
    return [file_record(path, role) for path, role in files if path is not None]


def _textures(folder: Path | None) -> tuple[Path, ...]:
    if folder is None:
        return ()
    found = tuple(picture for place in (folder, *sorted(folder.glob("*/"))) for picture in find_pictures(place))
    if not found:
        msg = f"{folder}: no pictures to be used as textures; give a folder of pictures (or of folders of them), or no --textures"
        raise DataError(msg)
    return found
