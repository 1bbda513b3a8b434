"""The layouts of the paper's tables 1 to 7, filled with whatever cells there are; the rest stays empty and is named."""

from collections.abc import Sequence
from dataclasses import dataclass

from dualanodiff.bench.tables import Metric, Row, average, judged_metric, lift_metric, spell
from dualanodiff.errors import SettingsError
from dualanodiff.pages import Table

CATEGORIES = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)
_BCM = ("bottle", "grid", "hazelnut", "pill", "screw", "toothbrush")
"""Where the paper's own rows are with background compensation: its section 7's five, and toothbrush of its table 5."""
OURS = "ours*"
"""Ours as the paper reports it: "ours-bcm" in those categories, "ours" in the others."""
_DETECTION = (
    lift_metric("AUC-P", "pixel_auroc", "generated"),
    lift_metric("AP-P", "pixel_ap", "generated"),
    lift_metric("F1-P", "pixel_f1", "generated"),
)


@dataclass(frozen=True)
class Layout:
    """One table: its columns are methods, each with the same metrics; the paper's averages stand in the last line."""

    title: str
    metrics: tuple[Metric, ...]
    methods: tuple[tuple[str, str], ...]
    """The paper's heading and our method's name."""
    averages: tuple[tuple[float, ...], ...]
    """What the paper prints as the average, by method and metric."""
    categories: tuple[str, ...] = CATEGORIES
    shown: tuple[str, ...] | None = None
    """Categories with a line of their own; all of them if None."""


LAYOUTS: dict[int, Layout] = {
    1: Layout(
        "Table 1: IS and IC-LPIPS",
        (judged_metric("IS", "is", decimals=2), judged_metric("IC-L", "ic_lpips", decimals=2)),
        (
            ("CDC", "cdc"),
            ("Crop-Paste", "crop-paste"),
            ("SDGAN", "sdgan"),
            ("Defect-GAN", "defect-gan"),
            ("DFMGAN", "dfmgan"),
            ("AnomalyDiffusion", "anomalydiffusion"),
            ("Ours", OURS),
        ),
        ((1.65, 0.07), (1.51, 0.14), (1.71, 0.13), (1.69, 0.15), (1.72, 0.20), (1.80, 0.32), (1.93, 0.38)),
    ),
    2: Layout(
        "Table 2: detection and localization by a U-Net",
        (*_DETECTION, lift_metric("AP-I", "image_ap", "generated")),
        (
            ("DRAEM", "draem"),
            ("PRN", "prn"),
            ("DFMGAN", "dfmgan"),
            ("AnomalyDiffusion", "anomalydiffusion"),
            ("Ours", OURS),
        ),
        (
            (92.2, 54.1, 53.1, 97.0),
            (96.9, 66.2, 64.7, 96.6),
            (90.0, 62.7, 62.1, 94.8),
            (99.1, 81.4, 76.3, 99.7),
            (99.1, 84.5, 78.8, 98.9),
        ),
    ),
    3: Layout(
        "Table 3: classification accuracy by a ResNet-18",
        (lift_metric("accuracy", "accuracy", "generated"),),
        (
            ("DiffAug", "diffaug"),
            ("Crop-Paste", "crop-paste"),
            ("DFMGAN", "dfmgan"),
            ("AnoDiff", "anomalydiffusion"),
            ("Ours", OURS),
        ),
        ((39.31,), (40.55,), (49.61,), (66.09,), (79.67,)),
        tuple(name for name in CATEGORIES if name != "toothbrush"),
    ),
    4: Layout(
        "Table 4: localization by detectors",
        _DETECTION[:2],
        (
            ("DRAEM", "draem-detector"),
            ("SSPCAB", "sspcab"),
            ("CFA", "cfa"),
            ("RD4AD", "rd4ad"),
            ("PatchCore", "patchcore"),
            ("MuSc", "musc"),
            ("DevNet", "devnet"),
            ("DRA", "dra"),
            ("PRN", "prn-detector"),
            ("Ours", OURS),
        ),
        (
            (97.7, 69.0),
            (96.2, 65.5),
            (98.3, 66.3),
            (98.3, 57.8),
            (97.1, 56.6),
            (97.5, 62.6),
            (86.4, 49.3),
            (84.8, 25.7),
            (99.0, 78.6),
            (99.1, 84.5),
        ),
    ),
    5: Layout(
        "Table 5: background compensation",
        _DETECTION,
        (("Without BCM", "ours"), ("With BCM", OURS)),
        ((98.8, 83.0, 78.1), (99.1, 84.5, 78.8)),
        shown=("bottle", "pill", "toothbrush"),
    ),
    6: Layout(
        "Table 6: ablation, by pixel",
        _DETECTION,
        (("names as prompts", "ours-names"), ("+ prompt", "ours"), ("+ prompt + BCM", OURS)),
        ((97.22, 72.35, 67.21), (98.8, 83.0, 78.1), (99.1, 84.5, 78.8)),
    ),
    7: Layout(
        "Table 7: ablation, by image",
        (
            lift_metric("AUC-I", "image_auroc", "generated"),
            lift_metric("AP-I", "image_ap", "generated"),
            lift_metric("F1-I", "image_f1", "generated"),
        ),
        (("names as prompts", "ours-names"), ("+ prompt", "ours"), ("+ prompt + BCM", OURS)),
        ((94.9, 97.4, 94.38), (97.6, 98.6, 96.5), (99.8, 98.9, 99.8)),
    ),
}


def read_table_numbers(text: str) -> list[int]:
    """Numbers from "1,2,3"; SettingsError for one that the paper does not have.

    >>> read_table_numbers("2,3")
    [2, 3]
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = next((word for word in words if not word.isdecimal() or int(word) not in LAYOUTS), None)
    if wrong is not None or not words:
        msg = f"--tables {text}: there are tables {', '.join(map(str, LAYOUTS))} of the paper; name some, with commas"
        raise SettingsError(msg)
    return [int(word) for word in words]


def paper_table(number: int, rows: Sequence[Row]) -> Table:
    """One table in the paper's layout; empty cells are named below it, and the paper's own averages close it."""
    layout = LAYOUTS[number]
    rows = [*rows, *_as_the_paper_reports(rows)]
    columns = tuple(f"{heading} {metric.title}" for heading, _ in layout.methods for metric in layout.metrics)

    def line(places: Sequence[str]) -> list[str]:
        return [
            spell(average(rows, metric, name, places), metric.decimals)
            for _, name in layout.methods
            for metric in layout.metrics
        ]

    lines = [(place, *line([place])) for place in layout.shown or layout.categories]
    lines.append(("Average", *line(layout.categories)))
    lines.append(("the paper's average", *(f"{value:g}" for each in layout.averages for value in each)))
    return Table(layout.title, ("category", *columns), tuple(lines), tuple(_notes(number, layout, rows)))


def _notes(number: int, layout: Layout, rows: Sequence[Row]) -> list[str]:
    notes: list[str] = []
    for heading, name in layout.methods:
        missing = [
            place
            for place in layout.categories
            if not any(row["method"] == name and row["data"] == place for row in rows)
        ]
        if len(missing) == len(layout.categories):
            notes.append(f"Not run: {heading} ({_what(name)}), in no category.")
        elif missing:
            notes.append(f"Not run: {heading} ({_what(name)}) in {', '.join(missing)}.")
    judged = [found for row in rows for found in row["judged"].values()]
    if number == 1 and any(not found["standard"] for found in judged):
        used = sorted({f"{found['network']} and {found['distance']}" for found in judged})
        notes.append(
            f"By {', '.join(used)} in place of Inception-v3 and LPIPS-VGG: neither IS nor IC-LPIPS, whatever the columns say."
        )
    return notes


def _what(name: str) -> str:
    return "ours-bcm and ours" if name == OURS else name


def _as_the_paper_reports(rows: Sequence[Row]) -> list[Row]:
    """The cells of "ours" and "ours-bcm" that stand for ours in the paper's tables."""
    wanted = {True: "ours-bcm", False: "ours"}
    return [{**row, "method": OURS} for row in rows if row["method"] == wanted[row["data"] in _BCM]]
