"""Collections of images: files on disk, tensors in memory, joined, chosen and blended ones.

A million file names are one Arrow array, not a million Python strings; an image is read, decoded
and checked when a worker process asks for it.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from genkl.storage import hash_tensors

FINGERPRINT_BYTES = 16
"""Length of an image's content hash: collisions stay improbable beyond 10^18 images."""


JPEG, DECODED = b"\xff\xd8", b"16 bits on white"
"""How a JPEG begins; and what the fingerprints of others hold beside their bytes, so that features
of what used to be decoded in another way are not taken from a cache."""

ORIENTATION = 0x0112
TURNS = dict(enumerate(map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), 2))
"""How an image is turned upright by what the EXIF tag says, 2 to 8; 1 is upright."""

NO_PIXELS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Parts of a PNG that Pillow refuses beyond a megabyte, and that no pixel depends on."""


class ImageError(OSError):
    """An image that can't be used. The message holds its path and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple:
        return ImageError, (self.name, self.reason)


class Images(ABC):
    """N images, each with a name for messages and a fingerprint of its content."""

    in_memory = False
    """Whether reading takes no time."""

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def read(self, row: int) -> Tensor:
        """One image, (3, H, W), uint8.

        Raises:
            ImageError: missing, truncated, or not an image.
        """

    @abstractmethod
    def fingerprint(self, row: int) -> bytes:
        """Hash of one image's content, `FINGERPRINT_BYTES` long.

        Raises:
            ImageError: the image can't be read.
        """

    @abstractmethod
    def name(self, row: int) -> str:
        """Where the image comes from, for messages."""

    def take(self, rows: np.ndarray | Tensor) -> Images:
        """The images at these positions, in this order."""
        return ChosenImages(self, positions(rows))


class ImageFiles(Images):
    """Image files under one folder.

    Args:
        root: the folder.
        names: paths relative to it: an Arrow array, or any iterable of strings.
        rows: which of the names, in which order; None is all of them.

    The names are kept once, however many splits refer to them.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        names: pa.Array | pa.ChunkedArray | Iterable[str],
        rows: np.ndarray | None = None,
    ) -> None:
        self.root = Path(root)
        if isinstance(names, pa.ChunkedArray):
            names = names.combine_chunks()
        elif not isinstance(names, pa.Array):
            names = pa.array([os.fspath(name) for name in names], pa.string())
        self.names = names
        self.rows = np.arange(len(names)) if rows is None else np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"ImageFiles({str(self.root)!r}, {len(self)} images)"

    def path(self, row: int) -> Path:
        """The file of one image."""
        return self.root / self.names[int(self.rows[int(row)])].as_py()

    def name(self, row: int) -> str:
        return str(self.path(row))

    def take(self, rows: np.ndarray | Tensor) -> ImageFiles:
        return ImageFiles(self.root, self.names, self.rows[positions(rows)])

    def encoded(self, row: int) -> bytes:
        """The file's bytes."""
        path = self.path(row)
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
                raise ImageError(str(path), "this is a folder, or something else that is no file")
            return path.read_bytes()
        except FileNotFoundError:
            raise ImageError(str(path), "there is no such file") from None
        except ImageError:
            raise
        except (OSError, ValueError) as error:  # such as a name with a zero byte
            raise ImageError(str(path), getattr(error, "strerror", "") or str(error)) from error

    def read(self, row: int) -> Tensor:
        return decode_image(self.encoded(row), self.name(row))

    def fingerprint(self, row: int) -> bytes:
        encoded = self.encoded(row)
        salt = b"" if encoded.startswith(JPEG) else DECODED
        return hashlib.blake2b(encoded, digest_size=FINGERPRINT_BYTES, salt=salt).digest()


class ImageTensor(Images):
    """Images in memory, seen through the same interface.

    Args:
        images: (N, 1 or 3, H, W), uint8, or float in [0, 1].
    """

    in_memory = True

    def __init__(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, 1 or 3, H, W)")
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def name(self, row: int) -> str:
        return f"image {int(row)} in memory"

    def read(self, row: int) -> Tensor:
        return as_bytes(self.images[int(row)]).expand(3, -1, -1)

    def fingerprint(self, row: int) -> bytes:
        digest = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
        hash_tensors({"": self.images[int(row)]}, digest)
        return digest.digest()


class _Elsewhere(Images):
    """Images that are those of other collections."""

    @abstractmethod
    def _at(self, row: int) -> tuple[Images, int]:
        """The collection that holds an image, and the image's row there."""

    def name(self, row: int) -> str:
        images, there = self._at(row)
        return images.name(there)

    def read(self, row: int) -> Tensor:
        images, there = self._at(row)
        return images.read(there)

    def fingerprint(self, row: int) -> bytes:
        images, there = self._at(row)
        return images.fingerprint(there)


class JoinedImages(_Elsewhere):
    """Images of several sources, one after the other."""

    def __init__(self, parts: Iterable[Images]) -> None:
        self.parts = tuple(parts)
        self.ends = np.cumsum([len(part) for part in self.parts])
        self.in_memory = all(part.in_memory for part in self.parts)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.parts) else 0

    def _at(self, row: int) -> tuple[Images, int]:
        part = int(np.searchsorted(self.ends, int(row), side="right"))
        return self.parts[part], int(row) - (int(self.ends[part - 1]) if part else 0)


class ChosenImages(_Elsewhere):
    """Some images of another collection, in an order of their own."""

    def __init__(self, images: Images, rows: np.ndarray) -> None:
        self.images, self.rows = images, np.asarray(rows, dtype=np.int64)
        self.in_memory = images.in_memory

    def __len__(self) -> int:
        return len(self.rows)

    def _at(self, row: int) -> tuple[Images, int]:
        return self.images, int(self.rows[int(row)])

    def take(self, rows: np.ndarray | Tensor) -> ChosenImages:
        return ChosenImages(self.images, self.rows[positions(rows)])


class BlendedImages(Images):
    """The average of two images each, the second brought to the size of the first."""

    def __init__(self, first: Images, second: Images) -> None:
        if len(first) != len(second):
            raise ValueError(f"{len(first)} and {len(second)} images; a blend needs pairs")
        self.first, self.second = first, second
        self.in_memory = first.in_memory and second.in_memory

    def __len__(self) -> int:
        return len(self.first)

    def name(self, row: int) -> str:
        return f"the average of {self.first.name(row)} and {self.second.name(row)}"

    def read(self, row: int) -> Tensor:
        first, second = self.first.read(row).float(), self.second.read(row)
        second = resize_image(second, tuple(first.shape[1:])).float()
        return ((first + second) / 2).round().to(torch.uint8)

    def fingerprint(self, row: int) -> bytes:
        both = self.first.fingerprint(row) + self.second.fingerprint(row)
        return hashlib.blake2b(b"average" + both, digest_size=FINGERPRINT_BYTES).digest()


def positions(rows: Any) -> np.ndarray:
    """Positions, int64, from a list, an array, a tensor, or a boolean mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)


def as_images(inputs: Tensor | Images) -> Images:
    """Images in memory and images on disk, through one interface."""
    return inputs if isinstance(inputs, Images) else ImageTensor(inputs)


def as_bytes(images: Tensor) -> Tensor:
    """Images of any shape as uint8; floats in [0, 1] are rounded."""
    if images.dtype == torch.uint8:
        return images
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """One image (C, H, W) at another height and width, antialiased; the same dtype."""
    from torchvision.transforms.v2 import functional

    if tuple(image.shape[1:]) == tuple(size):
        return image
    return functional.resize(image, list(size), antialias=True)


def decode_image(encoded: bytes, name: str) -> Tensor:
    """Decode a JPEG, PNG or other image that Pillow knows, upright (EXIF), as RGB.

    What is transparent lies on white. Grey of 16 bits keeps its 8 highest.

    Args:
        encoded: the file's bytes.
        name: for messages.

    Returns:
        (3, H, W), uint8.

    Raises:
        ImageError: empty, truncated, too large to be a photograph, of numbers whose white nobody
            states (integers of 32 bits, floats), or not an image.
    """
    if not encoded:
        raise ImageError(name, "the file is empty")
    if encoded.startswith(b"\x89PNG"):
        encoded = _without_texts(encoded)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ImageError(name, "too many pixels for a photograph")
            if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
                reason = f"32 bits a pixel (mode {image.mode}), and no word of what is white"
                raise ImageError(name, f"{reason}; save it with 8 or 16")
            image.load()
            pixels = np.array(upright(image, _as_rgb(image)))
    except UnidentifiedImageError:
        raise ImageError(name, "this is not an image") from None
    except Image.DecompressionBombError:
        raise ImageError(name, "too many pixels for a photograph") from None
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything at damaged bytes
        raise ImageError(name, f"damaged ({error or type(error).__name__})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def upright(image: Image.Image, shown: Image.Image) -> Image.Image:
    """What is shown of an image, turned as its EXIF says; nothing else in there matters."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION)) if "exif" in image.info else None
    except Exception:  # cameras write anything
        turn = None
    return shown if turn is None else shown.transpose(turn)


def _as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in red, green and blue, on white where it is transparent."""
    if image.mode.startswith("I"):
        image = Image.fromarray(_in_8_bits(image))
    if image.mode == "La":  # Pillow knows no way to RGBA
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA", "P") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_8_bits(image: Image.Image) -> np.ndarray:
    """Grey of 12 or 16 bits in 8, shape (H, W)."""
    grey, tags = np.asarray(image), getattr(image, "tag_v2", {})  # those of a TIFF
    white = 2 ** tags.get(258, (16,))[0] - 1
    scaled = (grey * (255 / white)).round().clip(0, 255).astype(np.uint8)
    if tags.get(262) == 0:  # white is zero
        scaled = 255 - scaled
    scaled[grey == image.info.get("transparency", -1)] = 255
    return scaled


def _without_texts(png: bytes) -> bytes:
    """A PNG without the parts of `NO_PIXELS`."""
    kept, at = [png[:8]], 8
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if kind not in NO_PIXELS:
            kept.append(png[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)
