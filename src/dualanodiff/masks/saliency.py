"""Masks by U^2-Net through onnxruntime: of a part (Paper sec. 3.2 and sec. 6.3), and of the object in a picture.

U^2-Net's own scripts stretch each map to 0..1, which turns an empty part into a full mask. Nothing is stretched
here, and an empty part is recognised before it is segmented.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from dualanodiff.data.keycolor import to_lab
from dualanodiff.errors import ModelError
from dualanodiff.masks.key import key_mask
from dualanodiff.masks.result import MaskResult, blobs, drop_specks, otsu

_SIDE = 320
# U^2-Net was trained on this size.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
# ImageNet's, as in training.
_MARGIN = 2.0
# A part is shown with this many times its own size around it. Measured on parts of 0.1 % to 5 % of the picture: mean
# overlap with the truth 0.64 for the whole picture, 0.72 with 0.5, 0.76 with 1, 0.78 with 2.
_SMALLEST_WINDOW = 24

NO_OBJECT = "no object found, whole picture"


class U2Net:
    """The salient object's probability, by a U^2-Net in onnx format on the CPU.

    Raises ModelError naming the file when it cannot be used, or when onnxruntime is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            msg = f"{self.path}: no such U^2-Net file; give the path of u2net.onnx or u2netp.onnx"
            raise ModelError(msg)
        try:
            import onnxruntime  # noqa: PLC0415  (needed by this method only)
        except ImportError:
            msg = f"{self.path}: needs onnxruntime, which is not installed; install it with `pip install onnxruntime`"
            raise ModelError(msg) from None
        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # noqa: BLE001  (onnxruntime raises a kind of its own for each fault)
            reason = str(error).splitlines()[0]
            msg = f"{self.path}: not a readable onnx model ({reason}); give u2net.onnx or u2netp.onnx"
            raise ModelError(msg) from None
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or len(outputs[0].shape) != 4:
            msg = f"{self.path}: takes {shape} and not (1, 3, {_SIDE}, {_SIDE}), so it is no U^2-Net; give u2net.onnx or u2netp.onnx"
            raise ModelError(msg)
        self._input, self._output = inputs[0].name, outputs[0].name

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Raw probability float32 (h, w) in 0..1 for a picture uint8 (h, w, 3); an empty picture stays near 0."""
        height, width = rgb.shape[:2]
        picture = Image.fromarray(rgb).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        values = np.asarray(picture, dtype=np.float32)
        values = (values / max(float(values.max()), 1.0) - _MEAN) / _DEVIATION
        batch = values.transpose(2, 0, 1)[None].astype(np.float32)
        found = np.asarray(self._session.run([self._output], {self._input: batch})[0], dtype=np.float32)[0, 0]
        return np.asarray(Image.fromarray(found).resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)


def saliency_mask(
    part: np.ndarray,
    model: U2Net,
    key: tuple[int, int, int],
    threshold: float | None = None,
    *,
    minimum_area: int = 4,
) -> MaskResult:
    """What U^2-Net sees in a part uint8 (h, w, 3) above a probability of `threshold` (0.5 if none or 0).

    A part with nothing but ground is empty without asking U^2-Net. A small part is shown to it enlarged, with some
    ground around it.
    """
    cut = threshold or 0.5
    ground = key_mask(part, key, minimum_area=minimum_area)
    if ground.empty:
        return MaskResult.nothing(part.shape, "u2net", cut)
    window = window_around(ground.mask)
    probability = np.zeros(part.shape[:2], dtype=np.float32)
    probability[window] = model(np.ascontiguousarray(part[window]))
    mask = drop_specks(probability > cut, minimum_area)
    return MaskResult.found(mask, "u2net", float(probability[mask].mean()) if mask.any() else 0.0, cut)


def window_around(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a square about everything in the mask, within the picture; the whole picture for a large one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    side = max(round(extent * (1 + 2 * _MARGIN)), _SMALLEST_WINDOW)

    def span(places: np.ndarray, length: int) -> slice:
        first = int(np.clip((places[0] + places[-1] + 1 - side) // 2, 0, max(0, length - side)))
        return slice(first, min(length, first + side))

    return span(rows, mask.shape[0]), span(columns, mask.shape[1])


def object_mask(rgb: np.ndarray, model: U2Net | None) -> tuple[np.ndarray, str]:
    """Where the object is in a picture uint8 (h, w, 3), as a bool mask (h, w), and how it was found.

    By U^2-Net, or without one by the distance from the border's colour. A full-frame texture has no background: its
    mask is all True, and the source says so.
    """
    if model is not None:
        mask, source = model(rgb) > 0.5, "u2net"
        good = 0.01 < mask.mean() < 0.95
    else:
        mask, good = _object_by_border(rgb)
        source = "threshold"
    return (mask, source) if good else (np.ones(rgb.shape[:2], dtype=bool), f"{source}: {NO_OBJECT}")


def _object_by_border(rgb: np.ndarray) -> tuple[np.ndarray, bool]:
    """What differs from the border's median colour, and whether that looks like one object on a plain ground."""
    lab = to_lab(rgb) / 100
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    distance = np.linalg.norm(lab - np.median(border, axis=0), axis=-1)
    outside = distance > otsu(distance)
    share, spread = outside.mean(), distance.var()
    if share in (0, 1):
        return outside, False
    # Otsu's own measure of how cleanly the two groups part: 0.93 and more on bottle and plate, 0.75 and less on tiles.
    between = share * (1 - share) * (distance[outside].mean() - distance[~outside].mean()) ** 2
    labels, areas = blobs(outside)
    largest = labels == areas.argmax() + 1
    mask = np.asarray(ndimage.binary_fill_holes(largest))
    # Many pieces are a pattern, as a circuit's, and not an object.
    one_object = between > 0.85 * spread and largest.sum() > 0.8 * outside.sum()
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return mask, bool(one_object and 0.02 < mask.mean() < 0.9 and edge.mean() < 0.5)
