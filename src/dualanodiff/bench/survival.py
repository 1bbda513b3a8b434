"""What a base's autoencoder leaves of real defects: nothing that it loses can be learned or drawn afterwards.

Every real defect picture goes through encode and decode. PSNR and SSIM judge the whole picture; *defect survival* is
the share of the defect's contrast that is left inside its mask, piece by piece, by the piece's thickness in pixels.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from dualanodiff.bench.contrast import ring_around, shown_contrast
from dualanodiff.bench.tasks import Task
from dualanodiff.data.shots import Shot, find_shots
from dualanodiff.grid import picture_grid
from dualanodiff.images import to_rgb
from dualanodiff.latents import encode_pictures
from dualanodiff.model.base import Base, load_base
from dualanodiff.progress import progress
from dualanodiff.storage import write_json, write_text

THICKNESS = (0.0, 2.5, 4.5, 9.0, 17.0, float("inf"))
"""Borders of the classes of thickness, in pixels."""
_SHOWN = 6
"""Pictures a task on the sheet."""


def measure_survival(
    bases: Sequence[str], tasks: Sequence[Task], out: Path, *, side: int | None = None, most: int = 24
) -> dict[str, Any]:
    """Encode and decode at most `most` pictures of each task with each base; write survival.json, .md and sheets.

    `side` is the pictures' side in pixels, each base's own if none. Returns rows and files.
    """
    rows: list[dict[str, Any]] = []
    with progress("survival", len(bases) * len(tasks)) as bar:
        for name in bases:
            base = load_base(name)
            for task in tasks:
                shots = read_task(task, side or base.resolution, most)
                decoded = rebuild(base, shots)
                rows.append({"base": name, "task": task.name, **survival(shots, decoded)})
                _sheet(shots, decoded, out / "sheets" / f"{_file_name(name)}-{_file_name(task.name)}.png")
                bar.step()
    write_json(out / "survival.json", {"side": side, "most": most, "rows": rows})
    write_text(out / "survival.md", survival_table(rows))
    return {"rows": rows, "table": str(out / "survival.md"), "sheets": str(out / "sheets")}


def read_task(task: Task, side: int, most: int) -> list[Shot]:
    """At most `most` pictures of a task, evenly spread over all that it has."""
    shots = find_shots(task.data, defect=task.defect, category=task.category, rule="all", resolution=side)
    chosen = np.linspace(0, len(shots) - 1, min(most, len(shots))).round().astype(int)
    return [shots[i] for i in chosen]


def rebuild(base: Base, shots: Sequence[Shot]) -> list[np.ndarray]:
    """The pictures after encode and decode."""
    device = next(base.vae.parameters()).device
    latents = encode_pictures(base, [shot.image for shot in shots])
    return list(to_rgb(base.decode(latents.to(device))))


def survival(shots: Sequence[Shot], decoded: Sequence[np.ndarray]) -> dict[str, Any]:
    """PSNR and SSIM of pictures, and median and lowest tenth of the contrast kept, in all and by thickness."""
    pieces = [piece for shot, picture in zip(shots, decoded, strict=True) for piece in _pieces(shot, picture)]
    classes: dict[str, dict[str, float | int]] = {}
    for low, high in zip(THICKNESS, THICKNESS[1:], strict=False):
        kept = [share for thickness, share in pieces if low <= thickness < high]
        if kept:
            classes[_class_name(low, high)] = _summary(kept)
    pairs = list(zip(shots, decoded, strict=True))
    return {
        "pictures": len(shots),
        "side": shots[0].image.shape[0],
        "psnr": round(float(np.mean([psnr(shot.image, picture) for shot, picture in pairs])), 2),
        "ssim": round(float(np.mean([ssim(shot.image, picture) for shot, picture in pairs])), 4),
        **(_summary([share for _, share in pieces]) if pieces else {"pieces": 0}),
        "by_thickness": classes,
    }


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures; infinite for equal ones.

    >>> round(psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)), 1)
    0.0
    """
    error = np.square(one.astype(float) - other).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two uint8 pictures (h, w, 3), mean over pixels and channels; 1 for equal ones.

    As Wang et al. 2004: Gaussian windows of deviation 1.5, constants 0.01 and 0.03 of the range.
    """

    def blur(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, (1.5, 1.5, 0))

    x, y = one.astype(float) / 255, other.astype(float) / 255
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + 0.01**2) * (2 * both + 0.03**2)
    return float((top / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))).mean())


def survival_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table: share of contrast kept, median (and lowest tenth), with the number of pieces."""
    names = [_class_name(low, high) for low, high in zip(THICKNESS, THICKNESS[1:], strict=False)]
    lines = ["| base | task | side | PSNR | SSIM | kept | " + " | ".join(names) + " |", "|---" * (6 + len(names)) + "|"]
    for row in rows:
        cells = [_cell(row["by_thickness"].get(name)) for name in names]
        facts = [row["base"], row["task"], row["side"], f"{row['psnr']:.1f}", f"{row['ssim']:.3f}", _cell(row)]
        lines.append("| " + " | ".join(str(cell) for cell in [*facts, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any] | None) -> str:
    return f"{row['kept']:.2f} ({row['kept_p10']:.2f}, n={row['pieces']})" if row and row["pieces"] else "-"


def _summary(kept: list[float]) -> dict[str, float | int]:
    median, low = (round(float(value), 3) for value in np.quantile(kept, (0.5, 0.1)))
    return {"pieces": len(kept), "kept": median, "kept_p10": low}


def _pieces(shot: Shot, decoded: np.ndarray) -> Iterable[tuple[float, float]]:
    """Thickness in pixels, and share of the contrast kept, of each connected piece of a picture's mask."""
    labels, count = ndimage.label(shot.mask, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    for label in range(1, count + 1):
        piece = np.asarray(labels == label)
        ring = ring_around(piece, shot.mask)
        if not ring.any():
            continue
        wanted = shot.image[piece] - shot.image[ring].mean(axis=0, dtype=float)
        found = decoded[piece] - decoded[ring].mean(axis=0, dtype=float)
        shown = shown_contrast(found, wanted)
        if shown is not None:
            yield 2 * float(np.asarray(ndimage.distance_transform_edt(np.pad(piece, 1))).max()) - 1, shown.share


def _class_name(low: float, high: float) -> str:
    return f"over {low:g} px" if high == float("inf") else f"{low:g} to {high:g} px"


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text).strip("_")


def _sheet(shots: Sequence[Shot], decoded: Sequence[np.ndarray], path: Path) -> None:
    rows = [[shot.image, picture, shot.mask] for shot, picture in zip(shots, decoded, strict=True)][:_SHOWN]
    picture_grid(rows, ["real", "after the autoencoder", "mask"], path, side=256)
