"""What is asked for, read from words, and what is refused."""

import json

import numpy as np
import pytest

from dualanodiff.errors import DataError, SettingsError
from dualanodiff.images import write_png
from dualanodiff.onto.cli import given_wishes
from dualanodiff.onto.wishes import Span, find_goods, read_wishes

GOODS = ["good.png"]


def test_words_become_wishes(tmp_path):
    wishes = read_wishes(
        GOODS, box="1,2,30,40", area="50:200", contrast="12", scale=0.1, mix=["runs/a=0.3", "runs/b=c=0.2"], defects=2
    )
    assert wishes.box == (1, 2, 30, 40)
    assert (wishes.area, wishes.contrast) == (Span(50, 200), Span(12, 12))
    assert {str(run): share for run, share in wishes.mix.items()} == {"runs/a": 0.3, "runs/b=c": 0.2}
    assert wishes.unit == pytest.approx(0.01)
    assert read_wishes(GOODS).unit == 1


REFUSED = {
    "box of three": ({"box": "1,2,3"}, r"--box 1,2,3: write x,y,width,height as whole pixels"),
    "box of nothing": ({"box": "1,2,0,4"}, r"--box 1,2,0,4: write x,y,width,height"),
    "area of none": ({"area": "0"}, r"--area 0: write a number above 0, or a span such as 40:200"),
    "area backwards": ({"area": "9:4"}, r"--area 9:4: write a number above 0"),
    "contrast in words": ({"contrast": "high"}, r"--contrast high: write a number above 0"),
    "scale": ({"scale": -1.0}, r"--scale -1: must be the millimetres that a pixel measures"),
    "mix without a share": ({"mix": ["runs/a"]}, r"--mix runs/a: write RUN=SHARE with a share between 0 and 1"),
    "mix of too much": ({"mix": ["a=0.7", "b=0.6"]}, r"--mix: the shares add up to 1.3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_words(name):
    words, message = REFUSED[name]
    with pytest.raises(SettingsError, match=message):
        read_wishes(GOODS, **words)


def test_a_span_draws_evenly_by_its_logarithm():
    random = np.random.default_rng(0)
    drawn = [Span(10, 1000).draw(random) for _ in range(400)]
    assert min(drawn) >= 10
    assert max(drawn) <= 1000
    assert 70 < np.median(drawn) < 140


def test_a_region_is_scaled_to_each_picture_and_met_with_the_box(tmp_path):
    mask = np.zeros((20, 40), bool)
    mask[:, 20:] = True
    write_png(tmp_path / "region.png", mask)
    wishes = read_wishes(GOODS, region=tmp_path / "region.png", box="0,0,60,20")
    region = wishes.region_of((40, 80, 3), tmp_path / "good.png")
    expected = np.zeros((40, 80), bool)
    expected[:20, 40:60] = True
    assert np.array_equal(region, expected)
    assert read_wishes(GOODS).region_of((40, 80), tmp_path) is None


def test_a_place_outside_of_the_picture_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"good.png: nothing of --box 90,0,5,5 lies in this picture of 80 x 40 pixels"):
        read_wishes(GOODS, box="90,0,5,5").region_of((40, 80), tmp_path / "good.png")


def test_good_pictures_are_found_by_themselves_from_what_the_run_has_read(product):
    root = product()
    shot = {"path": str(root / "test" / "scratch" / "000.png"), "role": "shot"}
    assert find_goods("good", {"files": [shot]}) == tuple(sorted((root / "train" / "good").iterdir()))
    assert len(find_goods(str(root / "test" / "good"), {"files": []})) == 2


def test_no_good_pictures_is_an_error_that_says_where_they_must_be(product, tmp_path):
    with pytest.raises(DataError, match=r"--onto good: no good pictures in .*; give their folder"):
        find_goods("good", {"files": [{"path": str(tmp_path / "shots" / "000.png"), "role": "shot"}]})
    with pytest.raises(DataError, match=r"--onto .*empty: no pictures; give a folder of good pictures"):
        find_goods(str(tmp_path / "empty"), {"files": []})


def a_run(folder, *files):
    """A run folder as far as the command line looks at it."""
    folder.mkdir()
    (folder / "config.toml").touch()
    (folder / "lineage.json").write_text(json.dumps({"files": list(files)}))
    return folder


def test_the_products_own_good_pictures_are_the_default(product, tmp_path):
    shot = {"path": str(product() / "test" / "scratch" / "000.png"), "role": "shot"}
    known, unknown = a_run(tmp_path / "known", shot), a_run(tmp_path / "unknown")
    out = tmp_path / "set"
    assert given_wishes(None, {"box": None}, known, out) == {"goods": "good"}
    assert given_wishes(None, {"box": None}, unknown, out) is None
    assert given_wishes("nothing", {"box": None}, known, out) is None
    assert given_wishes("parts", {"box": None, "area": "5"}, unknown, out) == {"goods": "parts", "area": "5"}
    # A wish says what is wanted: where no good pictures are known, generation says so.
    assert given_wishes(None, {"area": "5"}, unknown, out) == {"goods": "good", "area": "5"}
    with pytest.raises(
        SettingsError, match=r"--box: is for defects on good pictures; leave it out, or give --onto FOLDER"
    ):
        given_wishes("nothing", {"where": None, "box": "1,2,3,4"}, known, out)


def test_a_product_whose_folder_is_gone_is_named_and_not_drawn_from_nothing(product, tmp_path):
    root = product()
    run = a_run(tmp_path / "run", {"path": str(root / "test" / "scratch" / "000.png"), "role": "shot"})
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"{root}: is gone, .*; put it back, or draw whole parts with --onto nothing"):
        given_wishes(None, {}, run, tmp_path / "set")
    assert given_wishes("nothing", {}, run, tmp_path / "set") is None


@pytest.mark.parametrize("begun", ["onto", "whole"])
def test_a_set_goes_on_as_it_was_begun(begun, product, tmp_path):
    shot = {"path": str(product() / "test" / "scratch" / "000.png"), "role": "shot"}
    out = tmp_path / "set"
    out.mkdir()
    (out / "set.json").write_text(json.dumps({"onto": {}} if begun == "onto" else {}))
    given = given_wishes(None, {}, a_run(tmp_path / "run", shot), out)
    assert given == ({"goods": "good"} if begun == "onto" else None)
