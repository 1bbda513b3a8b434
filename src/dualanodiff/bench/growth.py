"""`bench growth`: how time and memory grow with the batch, the resolution and the number of shots."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dualanodiff.bench.sizes import noise_shots, size_base
from dualanodiff.bench.speed import build_fit
from dualanodiff.bench.stopwatch import Arm, compare
from dualanodiff.fitting import Fit, recommended
from dualanodiff.progress import progress
from dualanodiff.storage import write_json, write_text

BATCHES = (1, 2, 4, 8, 16)
SIDES = (0.5, 1.0, 1.5, 2.0)
"""Shares of the base's own resolution."""
SHOTS = (2, 4, 8, 16)


def measure_growth(out: Path, *, size: str, rounds: int, assignments: Mapping[str, str]) -> dict[str, Any]:
    """Time one axis after the other and fill `out`: growth.json, growth.md, growth.svg.

    Pairs are drawn in a quarter of the usual steps; a step is one of a fit.
    """
    with tempfile.TemporaryDirectory() as name, progress("bench growth", 3) as bar:
        folder = Path(name)
        axes = {}
        for axis, measure in (("batch", _batches), ("side", _sides), ("shots", _shots)):
            axes[axis] = measure(size, folder, rounds, assignments)
            bar.step()
    result = {"out": str(out), "size": size, **axes}
    write_json(out / "growth.json", result)
    write_text(out / "growth.md", growth_table(result))
    write_text(out / "growth.svg", growth_plot(result))
    return result


def _fit(size: str, folder: Path, assignments: Mapping[str, Any], *, shots: int = 8, share: float = 1.0) -> Fit:
    base = size_base(size)
    card = base.card or {"settings": {**size_base("mini").card["settings"], "data": {"resolution": base.resolution}}}
    base = replace(base, card=card)
    settings = recommended(base).updated({"data.key_color": "grey", "train.preview_steps": 0}, "bench")
    settings = settings.updated(assignments, "--set").updated(
        {"data.resolution": int(base.resolution * share)}, "bench"
    )
    return build_fit(noise_shots(shots, settings.data.resolution), base, settings, folder, [])


def _rows(names: Sequence[Any], arms: Sequence[Arm], rounds: int, fit: Fit) -> list[dict[str, Any]]:
    found = compare(arms, rounds=rounds, device=fit.device)
    return [
        {"at": at, "seconds": found["median"][arm.name], "peak_bytes": found["peak_bytes"][arm.name]}
        for at, arm in zip(names, arms, strict=True)
    ]


def _batches(size: str, folder: Path, rounds: int, assignments: Mapping[str, str]) -> list[dict[str, Any]]:
    """Seconds a pair against pairs a call."""
    fit = _fit(size, folder, assignments)
    usual = fit.settings.sample
    quick = replace(usual, num_inference_steps=max(1, usual.num_inference_steps // 4))
    sampler = fit.sampler()

    def drawing(batch: int) -> Callable[[int], object]:
        return lambda turn: sampler.draw(range(turn * batch, turn * batch + batch), 0, quick)

    return _rows(BATCHES, [Arm(str(batch), drawing(batch), batch) for batch in BATCHES], rounds, fit)


def _sides(size: str, folder: Path, rounds: int, assignments: Mapping[str, str]) -> list[dict[str, Any]]:
    """Seconds a fit's step against the side of a picture."""
    fits = [_fit(size, folder, assignments, share=share) for share in SIDES]
    sides = [fit.settings.data.resolution for fit in fits]
    return _rows(sides, [Arm(str(side), fit.step) for side, fit in zip(sides, fits, strict=True)], rounds, fits[0])


def _shots(size: str, folder: Path, rounds: int, assignments: Mapping[str, str]) -> list[dict[str, Any]]:
    """Seconds a fit's step against the number of shots."""
    fits = [_fit(size, folder, assignments, shots=count) for count in SHOTS]
    return _rows(SHOTS, [Arm(str(count), fit.step) for count, fit in zip(SHOTS, fits, strict=True)], rounds, fits[0])


AXES = {
    "batch": ("pairs a call", "seconds a pair"),
    "side": ("pixels of a side", "seconds a step"),
    "shots": ("shots", "seconds a step"),
}


def growth_table(result: Mapping[str, Any]) -> str:
    """The figures as Markdown, one table an axis."""
    lines: list[str] = []
    for axis, (name, unit) in AXES.items():
        rows = result[axis]
        memory = ["-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f} MiB" for row in rows]
        lines += [
            f"| {name} | " + " | ".join(str(row["at"]) for row in rows) + " |",
            "|---" * (len(rows) + 1) + "|",
            f"| {unit} | " + " | ".join(f"{row['seconds']:.3g}" for row in rows) + " |",
            "| memory on top | " + " | ".join(memory) + " |",
            "",
        ]
    return "\n".join(lines)


def growth_plot(result: Mapping[str, Any]) -> str:
    """The figures as an SVG: one small plot an axis, both scales from zero, a straight line being linear growth."""
    plots = [_plot(result[axis], *AXES[axis], left=20 + 240 * i) for i, axis in enumerate(AXES)]
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="740" height="220" font-family="sans-serif" font-size="11">'
    return "\n".join([head, '<rect width="740" height="220" fill="white"/>', *plots, "</svg>", ""])


def _plot(rows: Sequence[Mapping[str, Any]], name: str, unit: str, *, left: int) -> str:
    width, height, top = 190, 140, 30
    most, slowest = max(row["at"] for row in rows), max(row["seconds"] for row in rows)
    dots = [
        (left + 30 + width * row["at"] / most * 0.95, top + height * (1 - row["seconds"] / slowest * 0.95))
        for row in rows
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    labels = "".join(
        f'<text x="{x:.1f}" y="{top + height + 14}" text-anchor="middle">{row["at"]}</text>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f6fb2"/>'
        for (x, y), row in zip(dots, rows, strict=True)
    )
    frame = f'<path d="M{left + 30} {top}v{height}h{width}" fill="none" stroke="#888"/>'
    line = f'<polyline points="{path}" fill="none" stroke="#1f6fb2" stroke-width="2"/>'
    titles = (
        f'<text x="{left + 30}" y="{top - 10}">{unit} (top: {slowest / 0.95:.2g})</text>'
        f'<text x="{left + 30 + width / 2}" y="{top + height + 32}" text-anchor="middle">{name}</text>'
    )
    return frame + line + labels + titles
