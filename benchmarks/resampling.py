"""What runs got right, image by image, packed as text."""

from __future__ import annotations

import base64

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
