"""A file system with faults, as this process sees it below a folder: shares, full disks, kills."""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EVERYTHING = bool(os.environ.get("GENKL_FAULTS"))
"""Whether to try every write instead of some: ``GENKL_FAULTS=all pytest tests/faults``."""


class Written:
    """A file opened for writing, each of whose writes is a moment at which things go wrong."""

    def __init__(self, file: Any, moment: Callable[[Callable[[], None] | None], None]) -> None:
        self.file, self.moment = file, moment

    def write(self, data: Any) -> int:
        def half() -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        before = self.file.tell()
        self.moment(half)
        if self.file.tell() != before:
            self.file.seek(before)
            self.file.truncate()
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class Disk:
    """What is below a folder lies on a share: no hard links, no sync of a folder, no rename of or
    over a file that is open. Writes, syncs and renames are counted.

    Args:
        monkeypatch: takes it back.
        folder: where the share is.
        full_at: from this moment on there is no space; half of that write is on the disk.
        at_each: called at each moment, with its number and what writes the first half of the data
            (None where none is written).
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *,
        full_at: int | None = None,
        at_each: Callable[[int, Callable[[], None] | None], None] = lambda *_: None,
    ) -> None:
        self.folder, self.full_at, self.at_each, self.moments = folder, full_at, at_each, 0
        open_, sync, replace = io.open, os.fsync, os.replace

        def opened(file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
            made = open_(file, mode, *given, **options)
            writes = set("wax+") & set(mode) and not isinstance(file, int) and self.has(file)
            return Written(made, self.moment) if writes else made

        def synced(handle: int) -> None:
            path = Path(f"/proc/self/fd/{handle}")
            if path.is_dir():
                raise OSError(errno.EINVAL, "Invalid argument")
            if self.has(os.readlink(path)):
                self.moment(None)
            sync(handle)

        def replaced(source: Any, target: Any) -> None:
            if self.has(target):
                self.at_each(self.count(), None)
                for path in (source, target):
                    if os.path.realpath(path) in open_files():
                        raise PermissionError(errno.EACCES, "The file is open")
            replace(source, target)

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", replaced)
        monkeypatch.setattr(os, "link", refuse)

    def has(self, path: Any) -> bool:
        """Whether a path is on the share."""
        return Path(os.path.abspath(path)).is_relative_to(self.folder)

    def count(self) -> int:
        """The number of this moment, from 1."""
        self.moments += 1
        return self.moments

    def moment(self, half: Callable[[], None] | None) -> None:
        """Data are on their way to the disk."""
        number = self.count()
        self.at_each(number, half)
        if self.full_at is not None and number >= self.full_at:
            if half is not None and number == self.full_at:
                half()
            raise OSError(errno.ENOSPC, "No space left on device")


def open_files() -> Iterator[str]:
    """The files that this process has open."""
    for handle in Path("/proc/self/fd").iterdir():
        try:
            yield os.readlink(handle)
        except OSError:
            continue


def snapshots(folder: Path, into: Path) -> Callable[[int, Callable[[], None] | None], None]:
    """What the disk holds at each moment, and with half of a write: all that a kill can leave."""

    def take(number: int, half: Callable[[], None] | None) -> None:
        if half is not None:
            half()
        shutil.copytree(folder, into / f"{number:03}")

    return take


def some(moments: int, most: int) -> list[int]:
    """Moments to try: all, or so many, the first and the last among them."""
    if EVERYTHING or moments <= most:
        return [*range(1, moments + 1)]
    return sorted({1 + round(at * (moments - 1) / (most - 1)) for at in range(most)})


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but for what is hidden."""
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if path.is_file() and "/." not in f"/{name}"
    }
