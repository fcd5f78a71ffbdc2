"""Atomic files: bytes, JSON, and tensors with a checksum; each is whole or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

VALUES, CHECKSUM = "genkl", "sha256"


class DamagedFileError(ValueError):
    """A file that is not what was written.

    Args:
        path: the file.
        problem: how that is known.
    """

    def __init__(self, path: Path, problem: object) -> None:
        super().__init__(
            f"{path} is damaged or of another kind ({problem}): put a copy of it back, or delete "
            "it if what it holds can be made again"
        )


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file that is either there as a whole or not at all, even if the power fails.

    Args:
        path: replaced if it exists; its folder is made.
        data: the content.

    Returns:
        The path.

    Raises:
        OSError: it can't be written; the message says what to do, and what was there stays.
    """
    write_together({path: data})
    return Path(path)


def write_together(files: Mapping[str | os.PathLike[str], bytes]) -> None:
    """Write files that belong together: none takes its place before all are on the disk.

    Args:
        files: contents by path, each replaced if it exists; their folders are made.

    Raises:
        OSError: one can't be written; it is named. What was there stays, and nothing new is left.
    """
    with _replacing_all(files) as temporaries:
        for (path, temporary), data in zip(temporaries.items(), files.values(), strict=True):
            with explained(path, temporary):
                temporary.write_bytes(data)


@contextlib.contextmanager
def _replacing_all(paths: Iterable[str | os.PathLike[str]]) -> Iterator[dict[Path, Path]]:
    """Where each path is written at first, beside it; all take their places at the end."""
    names = map(Path, paths)
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in names}
    new: list[Path] = []
    try:
        for path in temporaries:
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
        yield temporaries
        for path, temporary in temporaries.items():
            with explained(path, temporary):
                _sync(temporary)
        for path, temporary in temporaries.items():
            new += [] if path.exists() else [path]
            with explained(path, temporary):
                os.replace(temporary, path)
            with contextlib.suppress(OSError):  # shares and Windows can't, and the file is there
                _sync(path.parent)
    except OSError:
        for path in new:
            path.unlink(missing_ok=True)
        raise
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, which takes the place of another when the block ends without an error.

    Args:
        path: replaced if it exists; its folder is made.

    Yields:
        A temporary path beside it, on the same file system; nothing of it is left after an error.

    Raises:
        OSError: it can't be written; the message says what to do, and what was there stays.
    """
    with _replacing_all([path]) as temporaries, explained(*next(iter(temporaries.items()))):
        yield temporaries[Path(path)]


@contextlib.contextmanager
def explained(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name the file in an error of the system, and say what to do.

    Args:
        path: what is written.
        temporary: what it is written to at first.

    Raises:
        OSError: the one that was caught, in words.
    """
    try:
        yield
    except OSError as error:
        remedy = "look at the folder, close what has the file open,"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            size = temporary.stat().st_size if temporary and temporary.exists() else 0
            remedy = f"free {size / 1e6:,.0f} MB or more"
        raise OSError(
            error.errno,
            f"{path} can't be written ({error.strerror or error}): {remedy} and run it again; what "
            "was saved before is untouched",
        ) from error


@contextlib.contextmanager
def alone(path: Path, meanwhile: Callable[[], None]) -> Iterator[None]:
    """Be the only process at work, as long as the block lasts; then the next one's turn comes.

    The system drops the lock when a process ends, however it ends. Where it knows no locks (some
    shares, Windows), nobody is kept out.

    Args:
        path: a file that stands for the work; made, and left behind.
        meanwhile: called if another process is at work, before waiting for it; or raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            meanwhile()
            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


def plain(value: Any) -> Any:
    """What JSON can hold: NaN becomes null, infinities "inf" and "-inf", tuples lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write JSON atomically; see `write_atomically`."""
    return write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def save_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> Path:
    """Write JSON atomically, with a checksum among its values; see `write_atomically`.

    Raises:
        ValueError: NaN or infinity, which JSON hasn't.
    """
    held = json.loads(json.dumps(values, allow_nan=False))
    return write_json(path, {**held, CHECKSUM: _json_checksum(held)})


def load_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_json` wrote; without its checksum, it is taken as it is.

    Args:
        path: the file.

    Returns:
        The values.

    Raises:
        FileNotFoundError: no such file.
        DamagedFileError: cut off, changed, or no JSON by name.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DamagedFileError(path, error) from error
    if not isinstance(values, dict):
        raise DamagedFileError(path, "it holds no values by name")
    checksum = values.pop(CHECKSUM, None)
    if checksum not in (None, _json_checksum(values)):
        raise DamagedFileError(path, "its checksum does not match its content")
    return values


def _json_checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> Path:
    """Write tensors and plain values into one safetensors file, atomically, with a checksum.

    Args:
        path: the file.
        tensors: by name, on any device.
        values: what JSON can hold; infinities and NaN too.

    Returns:
        The path.

    Raises:
        OSError: see `write_atomically`.
    """
    from safetensors.torch import save

    own = {name: _own_copy(tensor) for name, tensor in sorted(tensors.items())}
    text = json.dumps(values)
    metadata = {VALUES: text, CHECKSUM: hash_tensors(own, hashlib.sha256(text.encode()))}
    return write_atomically(path, save(own, metadata))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote; no code in a file can run.

    Args:
        path: the file.

    Returns:
        The tensors, on the CPU, and the values.

    Raises:
        FileNotFoundError: no such file.
        DamagedFileError: cut off, changed, or not written by `save_tensors`.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = load(path.read_bytes())
        text = metadata[VALUES]
        values = json.loads(text)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedFileError(path, error) from error
    if metadata.get(CHECKSUM) != hash_tensors(tensors, hashlib.sha256(text.encode())):
        raise DamagedFileError(path, "its checksum does not match its content")
    return tensors, values


def _own_copy(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, and sharing no memory with another, as the format wants it."""
    return tensor.detach().cpu().contiguous().clone()


def hash_tensors(tensors: Mapping[str, Tensor], digest: hashlib._Hash) -> str:
    """Hash of tensors: their names, types, shapes and values.

    Args:
        tensors: by name, on any device; their order doesn't matter.
        digest: such as ``hashlib.sha256()``; what it was fed before counts, too.

    Returns:
        Hexadecimal digits.
    """
    import torch

    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        held = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(held.numpy().data)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
