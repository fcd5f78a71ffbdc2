"""Sources of data sets: found in the reader's folders, downloaded where allowed, or explained.

A data set is looked for in an explicit root, then in ``$GENKL_DATA``, then in the cache. Nothing
is downloaded unless asked for (`fetch`, or ``python -m genkl data get NAME``).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from tqdm import tqdm

from genkl.storage import replacing

TIMEOUT_SECONDS = 30


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
    given = os.environ.get("GENKL_DATA", "")
    roots = [Path(root).expanduser() for root in given.split(os.pathsep) if root]
    return [*roots, cache_folder() / "data"]


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that is written to unasked: the argument, ``$GENKL_CACHE``, or the user's cache.

    Where the user's is missing and can't be made (no home, or not one's own), as on some servers,
    it is a folder of the user among the temporary files.
    """
    if given := cache_dir or os.environ.get("GENKL_CACHE"):
        return Path(given).expanduser()
    with contextlib.suppress(RuntimeError):  # nobody knows a home
        usual = Path(platformdirs.user_cache_dir("genkl", appauthor=False))
        nearest = next((path for path in (usual, *usual.parents) if path.exists()), usual)
        if usual.is_absolute() and os.access(nearest, os.W_OK):
            return usual
    user = os.getuid() if hasattr(os, "getuid") else "cache"
    return Path(tempfile.gettempdir()) / f"genkl-{user}"


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
        return importlib.util.find_spec(source.package) is not None
    if not source.folders:
        return False
    try:
        find_data(source, data_root)
    except DataNotFoundError:
        return False
    return True


def find_neighbour(source: Source, data_root: str | os.PathLike[str] | None, folder: Path) -> Path:
    """The folder of a data set that another one needs: in the data roots, or beside that one.

    Raises:
        DataNotFoundError: it is nowhere; the message says what to get and where to put it.
    """
    try:
        return find_data(source, data_root)
    except DataNotFoundError:
        # Where the root is the other data set's own folder, this one may be beside it.
        if data_root is not None and is_present(source, folder.parent):
            return find_data(source, folder.parent)
        raise


# Downloads


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
    if not source.downloads:
        raise DataNotFoundError(explain(source))
    folder = (Path(root).expanduser() if root is not None else data_roots()[0]) / source.folders[0]
    for file in source.downloads:
        download(file, folder, progress=progress)
    return folder


def download(file: Download, folder: str | os.PathLike[str], *, progress: bool = True) -> Path:
    """Bring a file into a folder, unless it is there already.

    What has arrived is kept in a ``.part`` file beside the target; the next attempt asks the
    server for the rest. The target appears when its checksum is right and not before. A file
    of that name with another checksum is left alone and reported, never overwritten.

    Args:
        file: where from, what it must be, where to.
        folder: the data set's folder; made if needed.
        progress: show a bar.

    Returns:
        The file's path.

    Raises:
        OSError: the network or the disk failed; run it again to go on. What came has another
            checksum; it is deleted. Or another file is in its place.
    """
    target = Path(folder) / file.path
    partial = target.with_name(target.name + ".part")
    if target.exists():
        if not _is_whole(target, file.checksum):
            raise FileExistsError(
                f"{target} is there but is not the published file ({file.checksum}); move it away "
                "to fetch that, or use it as it is"
            )
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _receive(file.url, partial, progress)
        except (OSError, http.client.HTTPException) as error:
            kept = partial.stat().st_size if partial.exists() else 0
            raise OSError(
                f"{file.url} could not be fetched ({error}); {kept:,} bytes are kept in {partial}: "
                "run this again to go on"
            ) from error
        if not _is_whole(partial, file.checksum):
            partial.unlink()
            raise OSError(
                f"what {file.url} sent is not the published file ({file.checksum}); it was "
                "deleted. Run this again, and if it happens twice, report it"
            )
        os.replace(partial, target)
    unpack(target, Path(folder), file.unpack)
    return target


def _is_whole(path: Path, checksum: str) -> bool:
    kind, _, expected = checksum.partition(":")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == expected


def _receive(url: str, partial: Path, progress: bool) -> None:
    """Append to the partial file what it lacks."""
    have = partial.stat().st_size if partial.exists() else 0
    asked = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # everything is there
        raise
    if response.status != http.client.PARTIAL_CONTENT:
        have = 0  # the server starts over, and so do we
    left = int(response.headers.get("Content-Length", 0))
    bar = {"total": have + left or None, "initial": have, "desc": partial.stem}
    with (
        response,
        open(partial, "ab" if have else "wb") as file,
        tqdm.wrapattr(response, "read", disable=not progress, **bar) as body,
    ):
        shutil.copyfileobj(body, file)
    if left and partial.stat().st_size < have + left:
        raise ConnectionError("the connection ended early")


def unpack(archive: Path, folder: Path, members: Sequence[str]) -> None:
    """Unpack files from a tar archive; each appears whole or not at all, none is overwritten.

    Args:
        archive: the tar file, compressed or not.
        folder: where to.
        members: their names in the archive, which they keep below the folder.

    Raises:
        OSError: a member is missing from the archive, or is not a plain file.
    """
    wanted = [name for name in members if not (folder / name).exists()]
    if not wanted:
        return
    with tarfile.open(archive) as tar:
        for name in wanted:
            file = tar.extractfile(name) if name in tar.getnames() else None
            if file is None:
                raise OSError(f"{archive} holds no file {name}; fetch it again")
            with replacing(folder / name) as whole, open(whole, "wb") as out:
                shutil.copyfileobj(file, out)
