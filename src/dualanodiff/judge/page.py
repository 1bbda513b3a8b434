"""One HTML page about a judged set, with its pictures inside: it opens anywhere, without a network."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualanodiff.data.catalog import Sample
from dualanodiff.images import resize_mask, resize_rgb, to_pil
from dualanodiff.judge.aspects import ASPECTS
from dualanodiff.storage import write_text

THUMB = 112
MOST_PAIRS = 200
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:66rem;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #dfe4ea;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}.warn{background:#fff5e0;padding:.5rem .8rem;margin:.4rem 0}
.bad{color:#b3261e;font-weight:600}.quiet{color:#66717f}img{display:block;width:7rem;height:7rem;image-rendering:auto}
@media(prefers-color-scheme:dark){body{background:#14181d;color:#e4e8ee}th,td{border-color:#323a45}.warn{background:#3a2f14}
.bad{color:#ff8a80}.quiet{color:#98a3b1}}
"""


def write_page(
    path: Path,
    result: Mapping[str, Any],
    made: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    samples: Sequence[Sample],
    shots: Sequence[np.ndarray],
) -> None:
    """Write the page about an evaluation; pictures uint8 (h, w, 3) and masks bool (h, w) in the order of `each`."""
    title = f"{result['name']}: {result['pairs']} pairs judged"
    head = (
        f"{result['category']} / {result['defect']}, {result['side']} px; {result['held_out']} held-back real pictures, "
        f"{result['shots']} shots; apart from each other: {result['apart']}"
    )
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{_text(title)}</title><style>{_STYLE}</style><h1>{_text(title)}</h1><p>{_text(head)}</p>",
        *(f"<p class=warn>{_text(warning)}</p>" for warning in result["warnings"]),
        "<h2>Distributions</h2>",
        _metrics(result["metrics"]),
        *_aspects(result),
        f"<h2>Pairs, the worst first</h2>{_note(result)}",
        _pairs(
            result["each"], made, masks, {sample.image.stem: shot for sample, shot in zip(samples, shots, strict=True)}
        ),
        f"<p class=quiet>dualanodiff {_text(result['dualanodiff'])}</p></html>",
    ]
    write_text(path, "\n".join(parts) + "\n")


def worst_first(each: Sequence[Mapping[str, Any]]) -> list[int]:
    """The order of the pairs on the page: those that fail most come first, and among them the lowest score."""
    if not each or "valid" not in each[0]:
        return sorted(range(len(each)), key=lambda i: -each[i]["distance"])
    return sorted(
        range(len(each)), key=lambda i: (sum(each[i]["passed"].values()), min(each[i][name] for name in ASPECTS))
    )


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [_row("th", ["metric", "value", "spread", "generated", "real", "better", "the same for"])]
    for name, row in metrics.items():
        beside = "; ".join(f"{kind}: {_shown(value)}" for kind, value in row["beside"].items())
        cells = [_shown(row["value"]), _shown(row["spread"]), row["generated"], row["real"]]
        rows.append(_row("td", [name, *cells, row["better"], beside], numbers=range(1, 5)))
    return f"<table>{''.join(rows)}</table>"


def _aspects(result: Mapping[str, Any]) -> Iterable[str]:
    if not result["aspects"]:
        return
    yield "<h2>The four aspects</h2>"
    rows = [_row("th", ["aspect", "mean", "from", "passed"])]
    for name, row in result["aspects"].items():
        cells = [_shown(row["mean"]), _shown(row["threshold"]), f"{row['passed']} of {result['pairs']}"]
        rows.append(_row("td", [name.replace("_", " "), *cells], numbers=range(1, 4)))
    yield f"<table>{''.join(rows)}</table><p>{result['good']} of {result['pairs']} pass everything; {result['copies']} are copies of a shot.</p>"


def _note(result: Mapping[str, Any]) -> str:
    if len(result["each"]) <= MOST_PAIRS:
        return ""
    return f"<p class=quiet>The first {MOST_PAIRS} of {len(result['each'])}; all scores are in evaluation.json.</p>"


def _pairs(
    each: Sequence[Mapping[str, Any]],
    made: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    shots: Mapping[str, np.ndarray],
) -> str:
    judged = bool(each) and "valid" in each[0]
    names = [*ASPECTS, "copy"] if judged else []
    rows = [
        _row("th", ["pair", "picture", "mask", "nearest shot", *(name.replace("_", " ") for name in names), "distance"])
    ]
    thumbs = {name: _thumb(rgb) for name, rgb in shots.items()}
    for i in worst_first(each)[:MOST_PAIRS]:
        row = each[i]
        nearest = row.get("nearest_shot") or row["nearest_by_distance"]
        scores = [_score(row[name], row["passed"][name]) for name in names]
        shot = thumbs.get(nearest, "") + f"<span class=quiet>{_text(nearest)}</span>"
        cells = [_text(row["name"]), _thumb(made[i]), _thumb(masks[i]), shot, *scores, _shown(row["distance"])]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def _score(value: float, passed: bool) -> str:
    return f"{value:.2f}" if passed else f"<span class=bad>{value:.2f}</span>"


def _thumb(pixels: np.ndarray) -> str:
    """The picture or mask inside the page, as an img element."""
    file = io.BytesIO()
    small = resize_mask(pixels, THUMB) if pixels.dtype == bool else resize_rgb(pixels, THUMB)
    kind = "png" if pixels.dtype == bool else "jpeg"
    to_pil(small).save(file, kind.upper(), optimize=True, **({} if kind == "png" else {"quality": 80}))
    return f"<img alt='' src='data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}'>"


def _row(cell: str, texts: Sequence[object], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)
    cells = (f"<{cell}{' class=n' if i in right else ''}>{_text(text)}</{cell}>" for i, text in enumerate(texts))
    return f"<tr>{''.join(cells)}</tr>"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(value: object) -> str:
    return html.escape(str(value))
