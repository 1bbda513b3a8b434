"""The demo products: the written tree, likeness within a product, and distance from what pre-training draws."""

import numpy as np
import pytest

from dualanodiff.errors import DataError
from dualanodiff.images import read_mask, read_rgb
from dualanodiff.seeds import numpy_stream
from dualanodiff.synth.objects import SHAPES
from dualanodiff.synth.product import demo_products, write_product
from dualanodiff.synth.surfaces import ANY, FRAMES

PRODUCTS = demo_products()


@pytest.fixture(params=PRODUCTS)
def product(request):
    return PRODUCTS[request.param]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_there_are_three_products_with_two_defect_types_each():
    assert len(PRODUCTS) >= 3
    assert all(len(product.flaws) >= 2 for product in PRODUCTS.values())


def test_a_product_is_written_in_mvtec_layout(product, tmp_path):
    write_product(tmp_path, product, normals=3, defects=2, size=64, seed=0, test_normals=1)
    assert names(tmp_path) == ["ground_truth", "test", "train"]
    assert names(tmp_path / "train" / "good") == ["000.png", "001.png", "002.png"]
    assert names(tmp_path / "test" / "good") == ["000.png"]
    assert names(tmp_path / "test") == sorted([*product.flaws, "good"])
    assert names(tmp_path / "ground_truth") == sorted(product.flaws)
    for defect in product.flaws:
        assert names(tmp_path / "test" / defect) == ["000.png", "001.png"]
        assert names(tmp_path / "ground_truth" / defect) == ["000_mask.png", "001_mask.png"]
        assert read_rgb(tmp_path / "test" / defect / "001.png").shape == (64, 64, 3)
        assert 0.001 <= read_mask(tmp_path / "ground_truth" / defect / "001_mask.png").mean() <= 0.25


def test_each_defect_type_may_have_its_own_count(tmp_path):
    write_product(tmp_path, PRODUCTS["washer"], normals=0, defects={"chip": 2, "scratch": 1}, size=64, seed=0)
    assert len(names(tmp_path / "test" / "chip")) == 2
    assert len(names(tmp_path / "ground_truth" / "scratch")) == 1


def test_a_picture_depends_on_the_seed_and_not_on_the_counts(tmp_path):
    product = PRODUCTS["cap"]
    for folder, count, seed in (("few", 1, 0), ("many", 2, 0), ("other", 1, 1)):
        write_product(tmp_path / folder, product, normals=1, defects={"dent": count}, size=64, seed=seed)
    for path in ("train/good/000.png", "test/dent/000.png", "ground_truth/dent/000_mask.png"):
        few, many, other = ((tmp_path / folder / path).read_bytes() for folder in ("few", "many", "other"))
        assert few == many
        assert few != other


def test_an_unknown_defect_type_is_named_with_those_there_are(tmp_path):
    with pytest.raises(DataError, match="demo product washer: no defect type 'rust'; choose from scratch, chip"):
        write_product(tmp_path, PRODUCTS["washer"], normals=1, defects={"rust": 1}, size=64, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_good_parts_of_a_product_differ_little_but_differ(product):
    first, second = (product.draw_normal(numpy_stream(0, "test", k), 64).astype(int) for k in range(2))
    assert 0 < np.abs(first - second).mean() < 25
    assert np.abs(first.mean(axis=(0, 1)) - second.mean(axis=(0, 1))).max() < 12


def test_pretraining_draws_neither_the_shapes_nor_the_materials_of_the_products():
    shapes = {shape for shape, _ in SHAPES.values()}
    for product in PRODUCTS.values():
        assert product.shape not in shapes
        assert product.material not in {*FRAMES, *ANY, *(material for _, some in SHAPES.values() for material in some)}
