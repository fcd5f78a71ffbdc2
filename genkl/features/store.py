"""The cache of features: shards of rows in a folder, each row found by its image's content."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import uuid
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from genkl.data.images import FINGERPRINT_BYTES
from genkl.storage import write_atomically

SHARD_ROWS = 1000
"""Features are written to disk every so many images: what an interruption can cost."""
DIGEST = np.dtype(f"S{FINGERPRINT_BYTES}")
"""An image's fingerprint. NumPy pads byte strings with zeros before it compares them, so that
strings of one length are equal only if every byte is."""

log = logging.getLogger(__name__)


class FeatureStore:
    """Feature rows in one folder, which may hold those of a million images.

    Where the folder can't be written, rows are kept in memory, and a warning says so.

    Rows are only ever added, a shard at a time: a file with ``digests``, shape (n, 16), uint8, and
    ``features``, shape (n, d), float32. A shard appears when it is complete and has a name that no
    other process uses, so that several may add at once, on a network's file system too. A shard
    whose checksum doesn't fit is deleted, and its rows count as not there.

    Args:
        folder: need not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._pending: list[tuple[np.ndarray, Tensor]] = []
        self._is_writable = True

    def read(self, digests: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """The features of these images, as far as they are there.

        Args:
            digests: shape (N,), `DIGEST`; an image may occur several times.

        Returns:
            Which are there, shape (N,), bool, and the features, shape (N, d), float32: NaN where
            they are not; d is 0 where none are.
        """
        keys, first, which = np.unique(digests, return_index=True, return_inverse=True)
        known, features = np.zeros(len(digests), dtype=bool), torch.empty(len(digests), 0)
        kept = (_rows_of(path, keys) for path in sorted(self.folder.glob("*.safetensors")))
        pending = (_among(keys, *rows) for rows in self._pending)
        for found, rows in itertools.chain(kept, pending):
            if len(found) == 0:
                continue
            if features.shape[1] == 0:
                features = torch.full((len(digests), rows.shape[1]), float("nan"))
            known[first[found]] = True
            features[torch.from_numpy(first[found])] = rows
        twice = np.delete(np.arange(len(digests)), first)
        source = first[which[twice]]
        known[twice] = known[source]
        features[torch.from_numpy(twice)] = features[torch.from_numpy(source)]
        return known, features

    def add(self, digests: np.ndarray, features: Tensor) -> None:
        """Keep rows; they are written when there are enough for a shard, or at `flush`.

        Args:
            digests: shape (n,), `DIGEST`.
            features: shape (n, d), float32.
        """
        self._pending.append((digests, features))
        if self._is_writable and sum(len(rows) for rows, _ in self._pending) >= SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last shard as one more."""
        if not self._pending:
            return
        digests, features = zip(*self._pending, strict=True)
        as_numbers = np.concatenate(digests).view(np.uint8).reshape(-1, FINGERPRINT_BYTES)
        tensors = {"digests": torch.from_numpy(as_numbers), "features": torch.cat(features)}
        shard = save(tensors, {"checksum": _checksum(tensors)})
        try:
            write_atomically(self.folder / f"{uuid.uuid4().hex}.safetensors", shard)
            self._pending.clear()
        except OSError as error:
            if self._is_writable:
                log.warning("features will be computed again another time: %s", error)
            self._is_writable = False


def _rows_of(path: Path, keys: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """Which of the sorted keys a shard has, and their features; a damaged shard is deleted."""
    nothing = np.empty(0, dtype=np.int64), torch.empty(0, 0)
    try:
        with safe_open(path, "pt") as shard:
            tensors = {"digests": shard.get_tensor("digests")}
            own = tensors["digests"].numpy().view(DIGEST).reshape(-1)
            if not np.isin(own, keys).any():
                return nothing
            tensors["features"] = shard.get_tensor("features")
            if (shard.metadata() or {}).get("checksum") != _checksum(tensors):
                raise ValueError("its checksum does not match its content")
    except FileNotFoundError:  # another process has just deleted it
        return nothing
    except (SafetensorError, ValueError):
        log.warning("%s is damaged; its features will be computed again", path)
        with contextlib.suppress(OSError):
            path.unlink()
        return nothing
    return _among(keys, own, tensors["features"])


def _among(keys: np.ndarray, digests: np.ndarray, features: Tensor) -> tuple[np.ndarray, Tensor]:
    """Which of the sorted keys some rows have, and their features."""
    found = np.searchsorted(keys, digests).clip(max=len(keys) - 1)
    wanted = keys[found] == digests
    return found[wanted], features[torch.from_numpy(wanted)]


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("digests", "features"):
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
