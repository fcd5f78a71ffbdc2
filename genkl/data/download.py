"""Fetch a file: resumed where it broke off, checked, and in place only when it is whole."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from genkl.data.sources import Download

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 30


def download(one: Download, folder: str | os.PathLike[str], *, progress: bool = True) -> Path:
    """Bring a file into a folder, unless it is there already.

    What has arrived is kept in a ``.part`` file beside the target; the next attempt asks the
    server for the rest. The target appears when its checksum is right and not before. A file
    of that name with another checksum is left alone and reported, never overwritten.

    Args:
        one: where from, what it must be, where to.
        folder: the data set's folder; made if needed.
        progress: show a bar.

    Returns:
        The file's path.

    Raises:
        OSError: the network or the disk failed; run it again to go on. What came has another
            checksum; it is deleted. Or another file is in its place.
    """
    target = Path(folder) / one.path
    if target.exists():
        if not pooch.hashes.hash_matches(str(target), one.checksum):
            raise FileExistsError(
                f"{target} is there but is not the published file ({one.checksum}); move it away "
                "to fetch that, or use it as it is"
            )
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        try:
            _receive(one.url, partial, progress)
        except requests.RequestException as error:
            kept = partial.stat().st_size if partial.exists() else 0
            raise OSError(
                f"{one.url} could not be fetched ({error}); {kept:,} bytes are kept in {partial}: "
                "run this again to go on"
            ) from error
        if not pooch.hashes.hash_matches(str(partial), one.checksum):
            partial.unlink()
            raise OSError(
                f"what {one.url} sent is not the published file ({one.checksum}); it was deleted. "
                "Run this again, and if it happens twice, report it"
            )
        os.replace(partial, target)
    if one.unpack:
        unpack(target, Path(folder), one.unpack)
    return target


def _receive(url: str, partial: Path, progress: bool) -> None:
    """Append to the partial file what it lacks."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # everything is there
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0  # the server starts over, and so do we
        left = int(response.headers.get("Content-Length", 0))
        with (
            open(partial, "ab" if have else "wb") as file,
            tqdm(
                total=have + left or None, initial=have, desc=partial.name.removesuffix(".part"),
                unit="B", unit_scale=True, disable=not progress,
            ) as bar,
        ):  # fmt: skip
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
        if left and partial.stat().st_size < have + left:
            raise requests.ConnectionError("the connection ended early")


def unpack(archive: Path, folder: Path, members: tuple[str, ...]) -> None:
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
    scratch = tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-")
    with scratch, tarfile.open(archive) as tar:
        whole = Path(scratch.name) / "member"
        for name in wanted:
            try:
                file = tar.extractfile(name)
            except KeyError:
                file = None
            if file is None:
                raise OSError(f"{archive} holds no file {name}; fetch it again")
            with open(whole, "wb") as out:
                shutil.copyfileobj(file, out)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(whole, folder / name)
