"""What runs got right, image by image, packed as text."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np


def pack(hits: np.ndarray) -> str:
    """Booleans, shape (models, images), as text: "models:images:bits in base 64"."""
    bits = base64.b64encode(np.packbits(hits).tobytes()).decode()
    return f"{len(hits)}:{hits.shape[1]}:{bits}"


def unpack(text: str) -> np.ndarray:
    """What `pack` was given."""
    models, images, bits = text.split(":")
    shape = int(models), int(images)
    packed = np.frombuffer(base64.b64decode(bits), np.uint8)
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)


def read_correct(record: Path) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """What `benchmarks.learning.save_correct` wrote beside a record.

    Args:
        record: its path.

    Returns:
        By a run's key, how many of its models were right on each image, shape (images,); and who
        sent each image, or None.
    """
    path = record.with_name(f"{record.stem}-correct.npz")
    with np.load(path, allow_pickle=False) as kept:
        right = dict(zip(kept["keys"].tolist(), kept["right"].T, strict=True))
        return right, kept.get("groups")
