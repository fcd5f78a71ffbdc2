"""Where is the data? Found in the reader's folders, fetched where that is allowed, or explained.

A data set is looked for in an explicit root, then in ``$GENKL_DATA``, then in the cache. Nothing
is downloaded unless asked for (`fetch`, or ``python -m genkl data get NAME``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs


class DataNotFoundError(FileNotFoundError):
    """A data set that is not on this machine. The message says what to get and where to put it."""


@dataclass(frozen=True)
class Download:
    """A file that the licence lets anyone fetch.

    Attributes:
        url: where from.
        checksum: "sha256:..." or "md5:..." of the file.
        path: where it belongs, relative to the data set's folder.
        unpack: members of this tar archive to unpack beside it, relative to the data set's
            folder; empty for a file that is used as it is.
    """

    url: str
    checksum: str
    path: str
    unpack: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What a data set is and where its files are.

    Attributes:
        name: as `genkl.load_dataset` knows it.
        title: its full name.
        licence: under which its makers give it, in short.
        size: of what is to be obtained, in words.
        url: its home page.
        how_to_get: what to do if it is missing, in a sentence or two.
        folders: names its folder may have below a data root, the usual one first; empty where a
            Python package brings the data.
        layouts: alternative sets of files (relative to the folder), each sufficient.
        downloads: files that `fetch` can bring.
        package: the Python package that brings the data, where one does.
    """

    name: str
    title: str
    licence: str
    size: str
    url: str
    how_to_get: str
    folders: tuple[str, ...] = ()
    layouts: tuple[tuple[str, ...], ...] = ((),)
    downloads: tuple[Download, ...] = ()
    package: str | None = None


def data_roots(data_root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Folders to look in, in their order.

    Args:
        data_root: an explicit root; then nothing else is looked at.

    Returns:
        The explicit root alone, or else ``$GENKL_DATA`` (where set) and the cache.
    """
    if data_root is not None:
        return [Path(data_root).expanduser()]
    given = os.environ.get("GENKL_DATA")
    roots = [Path(one).expanduser() for one in given.split(os.pathsep) if one] if given else []
    return [*roots, download_folder()]


def download_folder() -> Path:
    """Where fetched data goes: ``$GENKL_CACHE/data``, or the user's cache folder."""
    cache = os.environ.get("GENKL_CACHE") or platformdirs.user_cache_dir("genkl", appauthor=False)
    return Path(cache).expanduser() / "data"


def find_data(source: Source, data_root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a data set.

    Args:
        source: the data set.
        data_root: the folder that holds the data set's folder, or that folder itself.

    Returns:
        The first folder that holds all files of one of the source's layouts.

    Raises:
        DataNotFoundError: none does; the message says what was missing where, and what to do.
    """
    looked: list[str] = []
    for root in data_roots(data_root):
        folders = [root / folder for folder in source.folders]
        for folder in [*folders, *([root] if data_root is not None else [])]:
            missing = [missing_files(folder, layout) for layout in source.layouts]
            if not all(missing):
                return folder
            least = min(missing, key=len)
            if folder.is_dir() and len(least) < max(len(layout) for layout in source.layouts):
                looked.append(f"{folder} (lacks {', '.join(least[:3])})")
            elif folder != root:
                looked.append(str(folder))
    raise DataNotFoundError(explain(source, looked))


def missing_files(folder: Path, layout: Sequence[str]) -> list[str]:
    """The files of a layout that a folder lacks."""
    if not folder.is_dir():
        return list(layout) or [str(folder)]
    return [name for name in layout if not (folder / name).exists()]


def explain(source: Source, looked: Sequence[str] = ()) -> str:
    """What to get and where to put it, in a few lines."""
    lines = [f"{source.title} is not on this machine."]
    if looked:
        lines.append("Looked for: " + "; ".join(looked) + ".")
    lines.append(source.how_to_get)
    if source.downloads:
        lines.append(f"`python -m genkl data get {source.name}` does it for you.")
    elif source.folders:
        lines.append(
            f"Put it into $GENKL_DATA/{source.folders[0]} (set GENKL_DATA to your data folder, or "
            "pass data_root=)."
        )
    lines.append(f"Licence: {source.licence}. Home: {source.url}")
    return "\n".join(lines)


def is_present(source: Source, data_root: str | os.PathLike[str] | None = None) -> bool:
    """Whether the data set can be loaded here."""
    if source.package is not None:
        import importlib.util

        return importlib.util.find_spec(source.package) is not None
    if not source.folders:
        return False
    try:
        find_data(source, data_root)
    except DataNotFoundError:
        return False
    return True


def fetch(
    source: Source, root: str | os.PathLike[str] | None = None, progress: bool = True
) -> Path:
    """Download a data set: resumed where a download broke off, checked, and put in place whole.

    Args:
        source: the data set.
        root: the data root to put its folder into; default: the first of ``$GENKL_DATA`` if set,
            else the cache.
        progress: show a bar.

    Returns:
        The data set's folder.

    Raises:
        DataNotFoundError: its makers want you to fetch it yourself; the message says how.
        OSError: the network failed (run it again: it goes on where it stopped), or what came has
            another checksum.
    """
    from genkl.data.download import download

    if not source.downloads:
        raise DataNotFoundError(explain(source))
    folder = (Path(root).expanduser() if root is not None else data_roots()[0]) / source.folders[0]
    for one in source.downloads:
        download(one, folder, progress=progress)
    return folder
