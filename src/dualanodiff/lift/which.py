"""Which defect type each set shows: as said on the command line, by the set itself, or because there is only one."""

from collections.abc import Sequence
from pathlib import Path

from dualanodiff.data.catalog import Category, category_folders, choose_name, read_category
from dualanodiff.errors import DataError
from dualanodiff.judge.source import Source, open_source


def find_sources(sets: Sequence[str | Path], data: str | Path, category: str | None = None) -> dict[str, Source]:
    """A source for each defect type that a set is given for, in the order of the category's types.

    A word is a folder, or DEFECT=FOLDER. A tree of others that has folders named like the types holds several. Raises
    DataError for a set whose type is unknown, and for two sets of one type.
    """
    folders = category_folders(data)
    name = choose_name(category, folders, "category", Path(data))
    product = read_category(name, folders[name])
    found: dict[str, Source] = {}
    for word in sets:
        for defect, source in _read_word(str(word), product).items():
            if defect in found:
                msg = f"{source.folder}: a second set of {defect}, after {found[defect].folder}; give one for each type"
                raise DataError(msg)
            found[defect] = source
    return {defect: found[defect] for defect in product.defects if defect in found}


def _read_word(word: str, product: Category) -> dict[str, Source]:
    said, equals, rest = word.partition("=")
    if equals and not Path(word).exists():
        choose_name(said, product.defects, "defect", product.root / "test")
        return {
            said: open_source(Path(rest), category=product.name, defect=said)
            if _many(Path(rest))
            else open_source(Path(rest))
        }
    folder = Path(word)
    if _many(folder):
        root = folder / product.name if (folder / product.name).is_dir() else folder
        if (root / "test").is_dir():
            root = root / "test"
        present = [defect for defect in product.defects if (root / defect).is_dir()]
        if present:
            return {defect: open_source(folder, category=product.name, defect=defect) for defect in present}
    source = open_source(folder)
    own = str((source.lineage() or {}).get("defect") or source.facts.get("defect") or "")
    if own in product.defects:
        return {own: source}
    if len(product.defects) == 1 and not own:
        return {next(iter(product.defects)): source}
    what = f"says that it shows {own!r}" if own else "does not say which defect it shows"
    msg = f"{folder}: {what}; {product.name} has {', '.join(product.defects)}: write DEFECT={folder}"
    raise DataError(msg)


def _many(folder: Path) -> bool:
    """Whether this may be a tree of others with a folder for each type."""
    return not (folder / "set.json").is_file() and not any((folder / name).is_dir() for name in ("image", "images"))
