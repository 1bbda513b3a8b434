import numpy as np
import pytest

from dualanodiff.pages import Cell, Figures, Table, Terms, Text, inline, inline_png, markdown, page

TABLE = Table(
    "Scores <of> a & b",
    ("method", "AP", "seen"),
    (("ours|theirs", Cell("7.0 ± 0.4", "best"), "15 of 16"), ("none", "-", "2 of 16")),
    ("a note",),
    lead="a lead",
)


def test_a_page_holds_every_kind_of_block_and_escapes_what_it_shows():
    blocks = [
        Text("worth <b>3</b> more", "sentence"),
        Text("dualanodiff bench", "command", heading="How"),
        Terms((("KID", "lower & better"),)),
        TABLE,
        Figures((("sheet", "sheets/a.png"),), heading="Looks"),
    ]
    made = page("A < B", blocks)
    assert "<title>A &lt; B</title>" in made and "<h1>A &lt; B</h1>" in made
    assert "worth &lt;b&gt;3&lt;/b&gt; more" in made and '<pre class="command">dualanodiff bench</pre>' in made
    assert "<dt>KID</dt><dd>lower &amp; better</dd>" in made
    assert "<h2>Scores &lt;of&gt; a &amp; b</h2>" in made and "a note" in made and "a lead" in made
    assert '<img src="sheets/a.png" alt="sheet">' in made
    assert "http" not in made, "the page must open without a network"


def test_columns_of_numbers_stand_to_the_right_and_others_do_not():
    assert TABLE.numeric == [False, True, True]
    mixed = Table(
        "", ("a", "b", "c", "d"), (("0.42 (0.01)", "1161.37 +- 45.53", "150 in 2277 s", ""), ("-", "", "x", ""))
    )
    assert mixed.numeric == [True, True, False, False]


def test_markdown_marks_the_best_and_keeps_its_columns_apart():
    assert markdown(TABLE).splitlines() == [
        "| method | AP | seen |",
        "| --- | --- | --- |",
        "| ours/theirs | **7.0 ± 0.4** | 15 of 16 |",
        "| none | - | 2 of 16 |",
    ]


def test_pictures_and_masks_lie_inside_the_page(tmp_path):
    from dualanodiff.images import write_png

    picture = np.full((8, 8, 3), 90, np.uint8)
    write_png(tmp_path / "a.png", picture)
    assert inline(picture).startswith("data:image/jpeg;base64,")
    assert inline(picture[..., 0] > 0).startswith("data:image/png;base64,")
    source = inline_png(tmp_path / "a.png")
    assert source.startswith("data:image/png;base64,")
    made = page("p", [Table("t", ("look", "copy"), ((Cell("cap", picture=source), Cell("0.99", "bad")),))])
    assert f'<img src="{source}" alt="cap">' in made
    assert '<td class="bad n">0.99</td>' in made


def test_a_block_of_an_unknown_field_is_an_error_rather_than_a_hole():
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        page("p", [object()])  # type: ignore[list-item]
