"""Few-shot tasks: a defect type of a product, as `DATA[:CATEGORY]:DEFECT` names it on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dualanodiff.data.catalog import find_categories, pick

FIXED = {
    "magnetic_tile": ("blowhole", "crack"),
    "mvtec_bottle": ("broken_large",),
    "mpdd_metal_plate": ("defect",),
}
"""The tasks of our own tables, by category: a data folder that holds these is measured on these."""


@dataclass(frozen=True)
class Task:
    """One defect type."""

    data: Path
    category: str
    defect: str

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.category}/{self.defect}"


def read_tasks(texts: Sequence[str]) -> list[Task]:
    """The tasks that the texts name, each once.

    A folder alone stands for its fixed tasks where it holds their categories, else for every defect type in it.
    Raises DataError for a folder, category or defect that is not there.
    """
    tasks: list[Task] = []
    for text in texts:
        tasks += [task for task in _read(text) if task not in tasks]
    return tasks


def _read(text: str) -> list[Task]:
    if Path(text).is_dir():
        categories = find_categories(text)
        fixed = [
            Task(Path(text), name, defect)
            for name, defects in FIXED.items()
            for defect in defects
            if name in categories and defect in categories[name].defects
        ]
        return fixed or [
            Task(Path(text), name, defect) for name, found in categories.items() for defect in found.defects
        ]
    words = text.rsplit(":", 2)
    if len(words) == 3 and not Path(f"{words[0]}:{words[1]}").is_dir():
        data, category, defect = words[0], words[1], words[2]
    else:
        data, _, defect = text.rpartition(":")
        category = None
    # A text without a colon names no folder that is there: pick says so.
    found, name = pick(data or text, category, defect if data else None)
    return [Task(Path(data or text), found.name, name)]
