"""Tables out of cells."""

import pytest

from dualanodiff.bench.paper_tables import CATEGORIES, LAYOUTS, paper_table, read_table_numbers
from dualanodiff.bench.tables import summary_tables, to_html, to_markdown
from dualanodiff.errors import SettingsError
from dualanodiff.pages import Cell, Table


def cell(method, data="bottle", seed=0, ap=0.5, **changes):
    judged = {"kid": 3.0, "ic_lpips": 0.3, "is": 1.5, "network": "n", "distance": "d", "standard": False, "copies": 0.0}
    scores = {"proved": True, "pixel_ap": ap, "pixel_auroc": 0.9, "pixel_f1": 0.4, "pro": 0.7}
    scores |= {"image_ap": 0.8, "image_auroc": 0.8, "image_f1": 0.8}
    row = {"method": method, "data": data, "seed": seed, "judged": {"x": judged}, "lift": {"generated": scores}}
    return row | changes


def control(method, ap):
    return cell(method, judged={}, lift={"real": {"proved": True, "pixel_ap": ap}})


def line(table, name):
    row = next(row for row in table.rows if row[0] == name)
    return dict(
        zip(table.columns, (f"**{cell.text}**" if isinstance(cell, Cell) else cell for cell in row), strict=True)
    )


def test_a_line_has_the_mean_over_data_and_the_spread_over_seeds():
    rows = [
        cell("a", data, seed, ap)
        for seed, aps in enumerate([(0.2, 0.4), (0.4, 0.6)])
        for data, ap in zip("xy", aps, strict=True)
    ]
    table = summary_tables(rows, ["a"], ["x", "y"])[0]
    assert line(table, "a")["pixel AP"] == "40.0 ± 14.1"
    assert line(table, "a")["KID x1e3"] == "3.0 ± 0.0"


def test_a_method_that_lacks_a_data_set_has_no_mean_and_is_named():
    rows = [cell("a", "x"), cell("b", "x"), cell("b", "y")]
    tables = summary_tables(rows, ["a", "b", "c"], ["x", "y"])
    assert line(tables[0], "a")["pixel AP"] == "-"
    assert line(tables[0], "b")["pixel AP"] == "50.0"
    assert any("a on y, c on x, c on y" in note for note in tables[0].notes)
    assert line(tables[1], "a") == {"method": "a", "x": "50.0", "y": "-", "mean": "-"}


def test_the_best_is_bold_in_the_right_direction():
    rows = [cell("a", ap=0.4), cell("b", ap=0.6)]
    rows[0]["judged"] = {"x": {**rows[0]["judged"]["x"], "kid": 1.0}}
    table = summary_tables(rows, ["a", "b"], ["bottle"])[0]
    assert line(table, "b")["pixel AP"] == "**60.0**"
    assert line(table, "a")["KID x1e3"] == "**1.0**"


def test_inspectors_without_a_set_stand_in_the_same_column():
    table = summary_tables([cell("a"), control("real-shots", 0.7)], ["a", "real-shots"], ["bottle"])[0]
    assert line(table, "real-shots")["pixel AP"] == "**70.0**"
    assert line(table, "real-shots")["with the shots"] == "70.0"
    assert line(table, "real-shots")["KID x1e3"] == "-"
    bare = cell("no-defects", judged={}, lift={"none": {"proved": True, "pixel_ap": 0.1}})
    table = summary_tables([bare], ["no-defects"], ["bottle"])[0]
    assert (line(table, "no-defects")["pixel AP"], line(table, "no-defects")["with the shots"]) == ("10.0", "-")


def test_stand_ins_and_missing_proofs_are_said():
    row = cell("a")
    row["lift"]["generated"]["proved"] = False
    notes = " ".join(summary_tables([row], ["a"], ["bottle"])[0].notes)
    assert "d, n: stand-ins, so no figures of publications" in notes
    assert "Without proof that they have not seen the test pictures: a." in notes


def test_pages_hold_every_cell_and_the_command_above():
    table = Table("A <title>", ("method", "pixel|AP"), (("a", Cell("1.0", "best")),), ("note",))
    markdown, page = to_markdown([table], "dualanodiff bench"), to_html([table], "dualanodiff bench")
    assert markdown.startswith("    dualanodiff bench\n")
    assert "| method | pixel/AP |\n| --- | --- |\n| a | **1.0** |" in markdown
    assert '<td class="best n">1.0</td>' in page
    assert "A &lt;title&gt;" in page
    assert page.index("dualanodiff bench") < page.index("<table")


@pytest.mark.parametrize("number", LAYOUTS)
def test_each_table_of_the_paper_has_its_shape_without_any_cell(number):
    layout, table = LAYOUTS[number], paper_table(number, [])
    assert len(table.columns) == 1 + len(layout.methods) * len(layout.metrics)
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert {text for row in table.rows[:-1] for text in row[1:]} == {"-"}
    assert len(table.notes) == len({name for _, name in layout.methods})
    assert all("Not run:" in note for note in table.notes)
    assert len(layout.averages) == len(layout.methods)
    assert {len(each) for each in layout.averages} == {len(layout.metrics)}


def test_known_tables_have_the_papers_rows():
    assert [len(paper_table(number, []).rows) - 2 for number in LAYOUTS] == [15, 15, 14, 15, 3, 15, 15]


def test_a_cell_lands_in_its_place_and_missing_categories_are_named():
    table = paper_table(2, [cell("draem", "cable", ap=0.25)])
    assert line(table, "cable")["DRAEM AP-P"] == "25.0"
    assert line(table, "bottle")["DRAEM AP-P"] == "-"
    assert line(table, "Average")["DRAEM AP-P"] == "-"
    assert line(table, "the paper's average")["DRAEM AP-P"] == "54.1"
    assert any("DRAEM (draem) in bottle, capsule" in note for note in table.notes)


def test_an_average_is_printed_only_over_all_categories():
    table = paper_table(2, [cell("draem", name, ap=0.3) for name in CATEGORIES])
    assert line(table, "Average")["DRAEM AP-P"] == "30.0"


def test_ours_is_reported_with_background_where_the_paper_does():
    rows = [
        cell(method, data, ap=ap) for data in ("bottle", "cable") for method, ap in (("ours", 0.1), ("ours-bcm", 0.9))
    ]
    table = paper_table(6, rows)
    assert line(table, "bottle")["+ prompt + BCM AP-P"] == "90.0"
    assert line(table, "cable")["+ prompt + BCM AP-P"] == "10.0"
    assert line(table, "bottle")["+ prompt AP-P"] == "10.0"


def test_stand_ins_do_not_pass_for_is():
    assert any("neither IS nor IC-LPIPS" in note for note in paper_table(1, [cell("crop-paste")]).notes)


@pytest.mark.parametrize("text", ["8", "1,x", ""])
def test_a_table_that_the_paper_does_not_have_is_refused(text):
    with pytest.raises(SettingsError, match="there are tables 1, 2, 3, 4, 5, 6, 7"):
        read_table_numbers(text)


def test_arms_that_learn_from_held_back_pictures_stand_on_the_far_half_only():
    assert not any("far half" in table.heading for table in summary_tables([cell("a")], ["a"], ["bottle"]))
    more = {"proved": True, "tested_on": "far", "pixel_ap": 0.8, "far": {"pixel_ap": 0.8}}
    made = {"proved": True, "tested_on": "all", "pixel_ap": 0.5, "far": {"pixel_ap": 0.6}}
    tables = summary_tables([cell("a", lift={"generated": made, "real+2": more})], ["a"], ["bottle"])
    assert line(tables[-1], "a") == {"method": "a", "generated": "60.0", "real+2": "80.0"}
    assert "other half" in tables[-1].notes[0]
