"""The mask of a part by SAM, prompted with what differs from the key colour."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch import Tensor
from transformers import AutoConfig, SamModel

from dualanodiff.errors import ModelError
from dualanodiff.masks.key import key_mask
from dualanodiff.masks.result import MaskResult, blobs, drop_specks

_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
# ImageNet's, as in SAM's training.
_PIECES = 16
# Smaller pieces beyond this many are not asked about: they are noise, and each costs time.


class Sam:
    """SAM from a folder in transformers' layout, or a hub id that is on this machine or reachable.

    transformers' own preprocessing needs torchvision, so the few steps are done here. Raises ModelError naming what
    was given.
    """

    def __init__(self, name: str | Path, *, device: str | torch.device = "cpu") -> None:
        hint = "give mask.model a folder or hub id of SAM weights for transformers, such as facebook/sam-vit-base"
        if not str(name):
            msg = f"mask.model is empty, but sam needs weights; {hint}"
            raise ModelError(msg)
        try:
            kind = AutoConfig.from_pretrained(name).model_type
            if kind != "sam":
                msg = f"{name}: holds a {kind} model, not sam; {hint}"
                raise ModelError(msg)
            loaded: Any = SamModel.from_pretrained(name, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            msg = f"{name}: no usable SAM weights ({reason}); {hint}"
            raise ModelError(msg) from None
        model, info = loaded
        # transformers draws what a file lacks at random, and only warns.
        if info["missing_keys"]:
            msg = f"{name}: {len(info['missing_keys'])} weights are missing, first {min(info['missing_keys'])}; {hint}"
            raise ModelError(msg)
        self.device = torch.device(device)
        self._model: Any = model.to(self.device).eval()
        self._side = int(model.config.vision_config.image_size)

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SAM's best mask bool (n, h, w) and its own estimate of their overlap with the truth (n,), one a prompt.

        `rgb` is uint8 (h, w, 3); `boxes` (n, 4) are left, top, right, bottom and `points` (n, 2) x, y in its pixels.
        """
        height, width = rgb.shape[:2]
        scale = self._side / max(height, width)
        inner = (round(height * scale), round(width * scale))
        picture = Image.fromarray(rgb).resize((inner[1], inner[0]), Image.Resampling.BILINEAR)
        values = (np.asarray(picture, dtype=np.float32) / 255 - _MEAN) / _DEVIATION
        padded = np.pad(values, ((0, self._side - inner[0]), (0, self._side - inner[1]), (0, 0)))
        output = self._model(
            pixel_values=self._tensor(padded.transpose(2, 0, 1)),
            input_boxes=self._tensor(boxes * scale),
            input_points=self._tensor(points[:, None] * scale),
            input_labels=torch.ones(1, len(points), 1, dtype=torch.long, device=self.device),
        )
        quality: Tensor = output.iou_scores[0].float()
        best = quality.argmax(dim=1)
        rows = torch.arange(len(points), device=self.device)
        logits: Tensor = output.pred_masks[0, rows, best].float()[:, None]
        logits = F.interpolate(logits, (self._side, self._side), mode="bilinear", align_corners=False)
        logits = logits[..., : inner[0], : inner[1]]
        logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        return (logits[:, 0] > 0).cpu().numpy(), quality[rows, best].cpu().numpy()

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values[None], dtype=np.float32)).to(self.device)


def sam_mask(
    part: np.ndarray,
    model: Sam,
    key: tuple[int, int, int],
    threshold: float | None = None,
    *,
    minimum_area: int = 4,
) -> MaskResult:
    """SAM's mask of every piece of a part uint8 (h, w, 3) that stands out from the ground.

    Pieces whose quality SAM puts below `threshold` are left out (none are, if none or 0). A part with nothing but
    ground is empty without asking SAM.
    """
    cut = threshold or 0.0
    ground = key_mask(part, key, minimum_area=minimum_area)
    if ground.empty:
        return MaskResult.nothing(part.shape, "sam", cut)
    masks, quality = model(part, *prompts(ground.mask))
    good = quality >= cut if cut else np.ones(len(quality), dtype=bool)
    mask = drop_specks(np.asarray(masks[good].any(axis=0)), minimum_area)
    return MaskResult.found(mask, "sam", float(quality[good].mean()) if good.any() else 0.0, cut)


def prompts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) left, top, right, bottom and innermost points (n, 2) x, y of the pieces of a mask, largest first."""
    labels, areas = blobs(mask)
    boxes, points = [], []
    for label in np.argsort(-areas, kind="stable")[:_PIECES] + 1:
        piece = labels == label
        rows, columns = np.nonzero(piece)
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        # Padded, so that a piece at the picture's edge is not thought to go on beyond it.
        depth = np.asarray(ndimage.distance_transform_edt(np.pad(piece, 1)))[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        points.append((column + 0.5, row + 0.5))
    return np.array(boxes, dtype=np.float32), np.array(points, dtype=np.float32)
