"""Pictures for pre-training: many folders packed into one file, and random crops drawn from it."""

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dualanodiff import images
from dualanodiff.errors import DataError
from dualanodiff.storage import write_atomic

PACKED_SIDE = 256


@dataclass(frozen=True)
class Pack:
    """Pictures in memory: `pixels` uint8 (n, 256, 256, 3), one caption each, and where they came from."""

    pixels: np.ndarray
    captions: tuple[str, ...]
    sources: dict[str, Any]

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.captions)


def caption_of(path: Path, root: Path) -> str:
    """Words of a file's own folder and name, the only text that comes with most free pictures.

    >>> caption_of(Path("pics/wood_floor/planks02.jpg"), Path("pics"))
    'wood floor planks'
    """
    text = " ".join(path.relative_to(root).with_suffix("").parts[-2:])
    words = [word for word in re.findall(r"[a-z]{3,}", text.lower()) if word not in _NO_CONTENT]
    return " ".join(words[:6])


# Words of file trees that say nothing of what a picture shows.
_NO_CONTENT = {"tex", "textures", "texture", "backgrounds", "background", "contents", "images", "img", "the", "and"}


def pack_folders(folders: list[Path], out: Path, *, index: Path | None = None) -> dict[str, Any]:
    """Write every picture below `folders` as 256 x 256 WebP into one safetensors file.

    `index` is a tab-separated table whose first column is a picture's path below the folder and whose second is
    the original file name, from which the caption is taken. Returns counts; DataError for a folder without pictures.
    """
    originals: dict[str, str] = {}
    if index is not None:
        rows = (line.split("\t") for line in index.read_text(encoding="utf-8").splitlines()[1:])
        originals = {row[0]: row[1] for row in rows if len(row) > 1}
    blobs: list[bytes] = []
    captions: list[str] = []
    counts: dict[str, int] = {}
    for folder in folders:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
        if not paths:
            msg = f"{folder}: no pictures ({', '.join(images.SUFFIXES)}) below it; give a folder that has some"
            raise DataError(msg)
        for path in paths:
            rgb = images.read_rgb(path, size=PACKED_SIDE)
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, "WEBP", quality=90, method=4)
            blobs.append(buffer.getvalue())
            name = str(path.relative_to(folder))
            captions.append(caption_of(folder / originals.get(name, name), folder))
            top = path.relative_to(folder).parts[0] if len(path.relative_to(folder).parts) > 1 else folder.name
            counts[top] = counts.get(top, 0) + 1
    joined = np.frombuffer(b"".join(blobs), dtype=np.uint8)
    offsets = np.cumsum([0, *(len(blob) for blob in blobs)]).astype(np.int64)
    sources = {"pictures": len(blobs), "folders": counts, "sha256": hashlib.sha256(joined.tobytes()).hexdigest()}
    header = {"captions": json.dumps(captions), "sources": json.dumps(sources)}
    write_atomic(out, lambda path: save_file({"bytes": joined, "offsets": offsets}, path, metadata=header))
    return sources


def load_pack(path: Path) -> Pack:
    """Decode a packed file into memory (0.2 MB a picture); DataError if it is not one."""
    try:
        with safe_open(path, framework="numpy") as file:
            joined, offsets = file.get_tensor("bytes"), file.get_tensor("offsets")
            header = file.metadata()
            captions, sources = json.loads(header["captions"]), json.loads(header["sources"])
        pixels = np.empty((len(captions), PACKED_SIDE, PACKED_SIDE, 3), np.uint8)
        for i, (begin, end) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
            pixels[i] = np.asarray(Image.open(io.BytesIO(joined[begin:end].tobytes())).convert("RGB"))
    except (SafetensorError, KeyError, OSError, ValueError, TypeError) as error:
        msg = f"{path}: not a packed picture file ({error}); make one with `dualanodiff pretrain pack`"
        raise DataError(msg) from None
    return Pack(pixels, tuple(captions), sources)


def draw_crop(pack: Pack, generator: np.random.Generator, size: int) -> tuple[np.ndarray, str]:
    """A random square crop scaled to `size`, mirrored or turned at random, with its caption."""
    i = int(generator.integers(len(pack)))
    side = int(generator.integers(size, PACKED_SIDE + 1)) if size < PACKED_SIDE else PACKED_SIDE
    top, left = generator.integers(0, PACKED_SIDE - side + 1, size=2)
    crop = pack.pixels[i, top : top + side, left : left + side]
    if side != size:
        crop = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS))
    crop = np.rot90(crop, int(generator.integers(4)))
    return np.ascontiguousarray(crop[:, ::-1] if generator.random() < 0.5 else crop), pack.captions[i]
