"""Tiny onnx files, written byte by byte because the package that makes them is no dependency of ours."""

from pathlib import Path


def _number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + _number(value // 128)


def _int(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _bytes(field: int, *parts: bytes | str) -> bytes:
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return _number(field << 3 | 2) + _number(len(content)) + content


def _value(field: int, name: str, shape: tuple[int, ...]) -> bytes:
    sides = b"".join(_bytes(1, _int(1, side)) for side in shape)
    return _bytes(field, _bytes(1, name), _bytes(2, _bytes(1, _int(1, 1), _bytes(2, sides))))


def write_onnx(path: Path, shape: tuple[int, ...]) -> Path:
    """A model that gives the brightest channel (1, 1, h, w) of an input of `shape`."""
    axes = _bytes(5, _bytes(1, "axes"), _int(8, 1), _int(20, 7))
    node = _bytes(1, _bytes(1, "x"), _bytes(2, "y"), _bytes(4, "ReduceMax"), axes)
    graph = _bytes(7, node, _bytes(2, "g"), _value(11, "x", shape), _value(12, "y", (shape[0], 1, *shape[2:])))
    path.write_bytes(_int(1, 8) + graph + _bytes(8, _int(2, 13)))
    return path
