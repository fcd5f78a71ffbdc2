"""The HTML page of an assessment: style, script, numbers and thumbnails in a single file."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from genkl import __version__
from genkl.data.images import ImageError, ImageFiles, Images, upright
from genkl.provenance import usable_cores
from genkl.report.assessment import FINE, KINDS, WRONG, Assessment
from genkl.report.table import no_class_name, to_frame
from genkl.storage import write_together

SIDE = 128
"""Longest side of a thumbnail, in pixels."""

MOST_THUMBNAILS = 3000
"""Thumbnails in a page unless told otherwise: about 10 MB of photographs."""

SMALL = 64
"""Images up to this side are kept to the pixel."""


def write_page(
    assessment: Assessment,
    path: str | os.PathLike[str],
    images: Images | None = None,
    *,
    title: str = "What to look at",
    max_thumbnails: int = MOST_THUMBNAILS,
    csv_name: str = "report.csv",
    table: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Path:
    """Write an assessment as one HTML page that needs no server, no network and no other file.

    Thumbnails of the images that should be looked at first are in the page. The others are shown
    from their files where the page can reach them: where they are image files on the same disk.

    Args:
        assessment: of N instances.
        path: of the page; a file that is there is replaced.
        images: the N images, in the same order; None where there are only predictions.
        title: of the page.
        max_thumbnails: images that the page holds itself, at least 0.
        csv_name: what the browser calls the table that it saves.
        table: where to write the table, too, see `write_table`: both are written, or neither.
        progress: show a bar.

    Returns:
        The path.

    Raises:
        ValueError: not as many images as instances, or a negative number of thumbnails.
        OSError: the page or the table can't be written; the message names it.
    """
    if images is not None and len(images) != len(assessment):
        raise ValueError(
            f"images holds {len(images)} images and the assessment {len(assessment)} instances; "
            "pass the images that were assessed, in their order"
        )
    if max_thumbnails < 0:
        raise ValueError(f"max_thumbnails is {max_thumbnails}; state 0 or more")
    path = Path(path)
    names = assessment.table["image"].tolist()
    rows = [] if images is None else suspects(assessment)[:max_thumbnails].tolist()
    held = _thumbnails(images, rows, progress) if rows else {}
    parts = {
        "version": html.escape(__version__),
        "title": html.escape(title),
        "css": _asset("report.css"),
        "data": _json(_data(assessment, _folder_url(images, path), csv_name)),
        "names": _json(names),
        "thumbnails": _json({"rows": [*held], "data": [*held.values()]}),
        "script": _asset("report.js"),
    }
    whole = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("report.html"))
    files = {path: whole.encode("utf-8", "backslashreplace")}
    if table is not None:
        files[Path(table)] = to_frame(assessment).to_csv(index=False).encode()
    write_together(files)
    return path


def suspects(assessment: Assessment) -> np.ndarray:
    """All rows, those first that should be looked at first, shape (N,).

    The kinds take turns, each in the order of its own evidence; what looks fine comes last.
    """
    kinds = assessment.kinds()
    score = assessment.table["score"].to_numpy()
    evidence = np.where(kinds == WRONG, assessment.table["gap"].to_numpy(), score)
    order = np.argsort(-evidence, kind="stable")
    turn = np.empty(len(order), dtype=np.int64)
    for kind in range(len(KINDS)):
        of_kind = order[kinds[order] == kind]
        turn[of_kind] = np.arange(len(of_kind))
    return np.lexsort((kinds, turn, kinds == FINE))


# --- What the page holds -------------------------------------------------------------------------


def _data(assessment: Assessment, images: str | None, csv_name: str) -> dict[str, Any]:
    """Numbers as little-endian arrays: exact, and read at once."""
    table, at = assessment.table, assessment.thresholds
    has_distance = at.max_distance is not None
    verified = np.where(table["is_nc"], -2, table["verified"])
    columns = {
        "given": _column(table["given"], "i4"),
        "verified": _column(verified, "i4"),
        "dominant": _column(table["dominant_entries"], "i4"),
        "topClasses": _column(assessment.top_classes, "i4"),
        "topProbs": _column(assessment.top_probs, "f4"),
        "givenProb": _column(table["given_prob"], "f4"),
        "gap": _column(table["gap"], "f8"),
        "score": _column(table["score"], "f8"),
        "entropy": _column(table["entropy"], "f8"),
        "apart": _column(table["distance" if has_distance else "top_two_mass"], "f8"),
    }
    digest = hashlib.blake2b("\0".join(table["image"]).encode(), digest_size=12)
    digest.update("\0".join(assessment.class_names).encode())
    return {
        "classes": assessment.class_names,
        "kinds": KINDS,
        "noClass": no_class_name(assessment.class_names),
        "columns": columns,
        "top": assessment.top_classes.shape[1],
        "thresholds": {
            "alpha": at.alpha,
            "apart": at.max_distance if has_distance else at.min_top_two_mass,
            "min_gap": at.min_gap,
        },
        "hasDistance": has_distance,
        "hasLabels": bool((table["given"] >= 0).any()),
        "images": images,
        "csv": csv_name,
        "fingerprint": digest.hexdigest(),
        "facts": assessment.facts,
        "leftOut": assessment.left_out,
    }


def _column(values: Any, dtype: str) -> tuple[str, str]:
    array = np.ascontiguousarray(values, dtype=f"<{dtype}")
    return dtype, base64.b64encode(array.tobytes()).decode("ascii")


def _json(content: Any) -> str:
    """JSON that no content can end the script element of."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text("utf-8")


def _folder_url(images: Images | None, page: Path) -> str | None:
    """Where the image files are, seen from the page; None where they are in memory."""
    if not isinstance(images, ImageFiles):
        return None
    root, here = images.root.resolve(), page.absolute().parent.resolve()
    try:
        relative = Path(os.path.relpath(root, here)).as_posix()
    except ValueError:  # another drive
        return f"{root.as_uri()}/"
    return f"{quote(os.fsencode(relative))}/"


# --- Thumbnails ----------------------------------------------------------------------------------


def _thumbnails(images: Images, rows: list[int], progress: bool) -> dict[int, str]:
    """Row -> a small image in base64; rows that can't be read are left out."""
    from tqdm.auto import tqdm

    def encoded(row: int) -> str | None:
        try:
            return base64.b64encode(_thumbnail(images, row)).decode("ascii")
        except (ImageError, OSError):
            return None

    bar = tqdm(total=len(rows), desc="thumbnails", unit="image", disable=not progress)
    held = {}
    with bar, ThreadPoolExecutor(usable_cores()) as pool:  # Pillow decodes without Python's lock
        for row, image in zip(rows, pool.map(encoded, rows), strict=True):
            bar.update()
            if image is not None:
                held[row] = image
    return held


def _thumbnail(images: Images, row: int) -> bytes:
    image = _draft(images.encoded(row)) if isinstance(images, ImageFiles) else None
    image = image or Image.fromarray(images.read(row).permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((SIDE, SIDE))
    into = io.BytesIO()
    if max(image.size) <= SMALL:
        image.save(into, "PNG", optimize=True)
    else:
        image.save(into, "JPEG", quality=78)
    return into.getvalue()


def _draft(encoded: bytes) -> Image.Image | None:
    """A JPEG decoded at a fraction of its size, which is faster; None for anything else."""
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as image:
            if image.mode != "RGB" or math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf):
                return None
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            image.load()
            return upright(image, image)
    except Exception:  # whatever it is, reading says so
        return None
