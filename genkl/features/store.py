"""Where do computed features stay? In shards on disk, each row found by its image's content."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import uuid
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genkl.data.images import FINGERPRINT_BYTES

log = logging.getLogger(__name__)


class FeatureStore:
    """Feature rows in one folder, which may hold those of a million images.

    Rows are only ever added, a shard at a time: a file with ``digests``, shape (n, 16), uint8, and
    ``features``, shape (n, d), float32. A shard appears when it is complete and has a name that no
    other process uses, so that several may add at once. A shard whose checksum doesn't fit is
    deleted, and its rows count as not there.

    Args:
        folder: need not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._shards: list[Path] = []
        self._sound: set[int] = set()
        self._digests = np.empty(0, dtype=f"S{FINGERPRINT_BYTES}")
        self._owners, self._rows = np.empty(0, np.int32), np.empty(0, np.int32)
        self._unsorted: list[tuple[np.ndarray, int]] = []
        for path in sorted(self.folder.glob("*.safetensors")):
            digests = _read_digests(path)
            if digests is not None:
                self._append(path, digests)

    def __len__(self) -> int:
        """Number of rows; one that two processes added counts twice."""
        self._sort()
        return len(self._digests)

    def has(self, digests: np.ndarray) -> np.ndarray:
        """Which images' features are there and undamaged: shape (N,), bool.

        Args:
            digests: shape (N, 16), uint8.
        """
        while True:
            found, at = self._find(digests)
            if not self._drop_damaged(np.unique(self._owners[at[found]]).tolist()):
                return found

    def read(self, digests: np.ndarray) -> Tensor:
        """The features of these images, in this order: shape (N, d), float32.

        Raises:
            KeyError: the features of an image are not there; see `has`.
        """
        found, at = self._find(digests)
        if not found.all():
            raise KeyError(f"{int((~found).sum())} of {len(found)} images have no features here")
        owners, rows = self._owners[at], self._rows[at]
        result: Tensor | None = None
        by_owner = np.argsort(owners, kind="stable")
        for wanted in np.split(by_owner, np.flatnonzero(np.diff(owners[by_owner])) + 1):
            if not len(wanted):
                continue
            with safe_open(self._shards[owners[wanted[0]]], "pt") as shard:
                features = shard.get_tensor("features")
            if result is None:
                result = torch.empty(len(digests), features.shape[1])
            result[torch.from_numpy(wanted)] = features[torch.from_numpy(rows[wanted]).long()]
        return torch.empty(0, 0) if result is None else result

    def add(self, digests: np.ndarray, features: Tensor) -> None:
        """Write a shard.

        Args:
            digests: shape (n, 16), uint8.
            features: shape (n, d), float32.
        """
        if len(digests) == 0:
            return
        features = features.float().contiguous()
        tensors = {"digests": torch.from_numpy(np.array(digests)), "features": features}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
        os.close(handle)
        try:
            save_file(tensors, temporary, {"checksum": _checksum(tensors)})
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._sound.add(len(self._shards))
        self._append(path, as_keys(digests))

    def _append(self, path: Path, digests: np.ndarray) -> None:
        self._unsorted.append((digests, len(self._shards)))
        self._shards.append(path)

    def _sort(self) -> None:
        """Bring new shards into the index; once for all of them, at the next look-up."""
        if not self._unsorted:
            return
        new = [digests for digests, _ in self._unsorted]
        owners = [np.full(len(digests), owner, np.int32) for digests, owner in self._unsorted]
        rows = [np.arange(len(digests), dtype=np.int32) for digests in new]
        digests = np.concatenate([self._digests, *new])
        order = np.argsort(digests, kind="stable")
        self._digests = digests[order]
        self._owners = np.concatenate([self._owners, *owners])[order]
        self._rows = np.concatenate([self._rows, *rows])[order]
        self._unsorted.clear()

    def _find(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which are there, and where in the index."""
        self._sort()
        keys = as_keys(digests)
        if len(self._digests) == 0:
            return np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=np.int64)
        at = np.minimum(np.searchsorted(self._digests, keys), len(self._digests) - 1)
        return self._digests[at] == keys, at

    def _drop_damaged(self, owners: list[int]) -> bool:
        """Check the shards that were not checked yet; True if one of them had to go."""
        damaged = []
        for owner in owners:
            if owner not in self._sound:
                (self._sound.add if _is_sound(self._shards[owner]) else damaged.append)(owner)
        for owner in damaged:
            _delete_damaged(self._shards[owner])
        if damaged:
            keep = ~np.isin(self._owners, damaged)
            self._digests, self._owners = self._digests[keep], self._owners[keep]
            self._rows = self._rows[keep]
        return bool(damaged)


def as_keys(digests: np.ndarray) -> np.ndarray:
    """Digests (N, 16) as N sortable values. NumPy pads byte strings with zeros before it compares
    them, so that strings of one length are equal only if every byte is."""
    digests = np.ascontiguousarray(digests, dtype=np.uint8).reshape(-1, FINGERPRINT_BYTES)
    return digests.view(f"S{FINGERPRINT_BYTES}").reshape(-1)


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("digests", "features"):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _read_digests(path: Path) -> np.ndarray | None:
    """The digests of a shard, None if it is damaged or has just been deleted by another process."""
    try:
        with safe_open(path, "np") as shard:
            return as_keys(shard.get_tensor("digests"))
    except FileNotFoundError:
        return None
    except (SafetensorError, ValueError):
        _delete_damaged(path)
        return None


def _is_sound(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as shard:
            tensors = {name: shard.get_tensor(name) for name in ("digests", "features")}
            return (shard.metadata() or {}).get("checksum") == _checksum(tensors)
    except (FileNotFoundError, SafetensorError):
        return False


def _delete_damaged(path: Path) -> None:
    log.warning("%s is damaged; its features will be computed again", path)
    with contextlib.suppress(OSError):
        path.unlink()
