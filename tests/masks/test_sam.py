"""Masks by SAM, the whole path with a tiny one of random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SamConfig, SamModel

from dualanodiff.errors import ModelError
from dualanodiff.masks.sam import Sam, prompts, sam_mask
from masks.drawings import KEY, SHAPE, disc, draw_part

EMPTY = np.zeros(SHAPE, bool)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [0],
            "output_channels": 16,
            "num_pos_feats": 8,
            "mlp_dim": 32,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
            "iou_head_depth": 2,
        },
    )
    path = tmp_path_factory.mktemp("sam")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SamModel(config).save_pretrained(path)
    return path


class Exact:
    """A SAM that returns its boxes, the second with little confidence."""

    def __call__(self, rgb: np.ndarray, boxes: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        masks = np.zeros((len(boxes), *rgb.shape[:2]), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return masks, np.array([0.9, 0.2][: len(boxes)])


def test_the_whole_path_runs_and_repeats_itself(folder):
    part = draw_part(disc(16, 16, 8) | disc(45, 70, 12))
    result = sam_mask(part, Sam(folder), KEY)
    assert result.source == "sam"
    assert result.mask.shape == SHAPE
    assert result.mask.dtype == bool
    assert result.empty is not result.mask.any()
    assert np.array_equal(result.mask, sam_mask(part, Sam(folder), KEY).mask)


def test_one_mask_and_one_quality_a_prompt(folder):
    boxes, points = prompts(disc(16, 16, 8) | disc(45, 70, 12))
    masks, quality = Sam(folder)(draw_part(EMPTY), boxes, points)
    assert masks.shape == (2, *SHAPE)
    assert quality.shape == (2,)


def test_an_empty_part_is_empty_before_sam_is_asked():
    for ground in ({}, {"drift": 30}, {"noise": 5}):
        assert sam_mask(draw_part(EMPTY, **ground), None, KEY).empty


def test_every_piece_is_prompted_by_its_box_and_its_innermost_point_largest_first():
    boxes, points = prompts(disc(16, 16, 8) | disc(45, 70, 12))
    assert boxes.tolist() == [[58, 33, 83, 58], [8, 8, 25, 25]]
    assert points.tolist() == [[70.5, 45.5], [16.5, 16.5]]


def test_the_point_of_a_piece_lies_in_it_even_for_a_ring_at_the_edge():
    ring = disc(10, 10, 16) & ~disc(10, 10, 11)
    (column, row) = prompts(ring)[1][0]
    assert ring[int(row), int(column)]


def test_a_part_without_ground_is_one_prompt():
    boxes, points = prompts(~EMPTY)
    assert boxes.tolist() == [[0, 0, SHAPE[1], SHAPE[0]]]
    assert abs(points[0, 1] - SHAPE[0] / 2) < 1


def test_the_masks_of_all_pieces_are_joined_and_doubtful_ones_can_be_left_out():
    part = draw_part(disc(16, 16, 8) | disc(45, 70, 12))
    both, sure = sam_mask(part, Exact(), KEY), sam_mask(part, Exact(), KEY, 0.5)
    assert both.mask.sum() == 25 * 25 + 17 * 17
    assert sure.mask.sum() == 25 * 25
    assert (both.score, sure.score) == (pytest.approx(0.55), pytest.approx(0.9))
    assert sam_mask(part, Exact(), KEY, 0.95).empty


def test_missing_weights_are_asked_for():
    with pytest.raises(
        ModelError, match=r"mask\.model is empty, but sam needs weights; give mask\.model a folder or hub id"
    ):
        Sam("")


def test_a_folder_without_weights_is_named(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: no usable SAM weights \(.+\); give mask\.model") as caught:
        Sam(tmp_path / "empty")
    assert "\n" not in str(caught.value)
    shutil.copy(folder / "config.json", tmp_path / "empty")
    with pytest.raises(ModelError, match=r"empty: no usable SAM weights"):
        Sam(tmp_path / "empty")


def test_a_folder_of_another_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"holds a bert model, not sam; give mask\.model"):
        Sam(tmp_path)


def test_weights_are_never_made_up(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "half")
    tensors = load_file(folder / "model.safetensors")
    del tensors[min(tensors)]
    save_file(tensors, tmp_path / "half" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"half: 1 weights are missing, first mask_decoder\..+; give mask\.model"):
        Sam(tmp_path / "half")
