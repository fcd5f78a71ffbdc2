"""The table of an assessment as CSV: one row per instance, with a suggestion."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from genkl.data.folder import NO_LABEL
from genkl.report.assessment import FINE, KINDS, OOD, WRONG, Assessment
from genkl.storage import write_atomically

NO_CLASS = ("none", "no class", "no class fits", "none of the classes")
"""What the column ``verified`` says of an image that belongs to no class: the first of these that
no class is called."""

NUMBERS = ("predicted_prob", "given_prob", "score", "entropy", "top_two_mass", "distance")


def no_class_name(class_names: Sequence[str]) -> str:
    """What the table calls an image that belongs to no class; never the name of a class."""
    return next((name for name in NO_CLASS if name not in class_names), "-".join(class_names))


def to_frame(assessment: Assessment) -> pd.DataFrame:
    """One row per instance, in the order of the assessment.

    Columns: ``image``, ``label`` (given, -1 where there is none), ``verified`` (empty where nobody
    looked), ``kind``, ``suggestion`` (what was verified; else a class where the label is likely
    wrong, `no_class_name` for what looks out of distribution, the given label for what looks fine,
    empty for what looks ambiguous), ``predicted``, ``dominant_entries``, the numbers behind them,
    and of a folder ``copy_of`` (the first of the images that are nearly the same as this one, empty
    for most). With ``verified`` filled in it is a table that `genkl.data.folder.load_folder` reads,
    with ``non_conforming_name="none"``.
    """
    none = no_class_name(assessment.class_names)
    table, kinds = assessment.table, assessment.kinds()
    names = np.array([*assessment.class_names, ""], dtype=object)  # -1 is the last
    given, predicted = names[table["given"]], names[table["predicted"]]
    suggestion = np.select(
        [kinds == FINE, kinds == WRONG, kinds == OOD], [given, predicted, none], ""
    )
    verified = names[table["verified"]]
    verified[table["is_nc"].to_numpy()] = none
    suggestion = np.where(verified == "", suggestion, verified)
    frame = pd.DataFrame(
        {
            "image": table["image"],
            "label": np.where(given == "", NO_LABEL, given),
            "verified": verified,
            "kind": np.array(KINDS, dtype=object)[kinds],
            "suggestion": suggestion,
            "predicted": predicted,
            "dominant_entries": table["dominant_entries"],
        }
    )
    for name in NUMBERS:
        if name in table:
            frame[name] = table[name].round(6)
    if "copy_of" in table:
        frame["copy_of"] = table["copy_of"]
    return frame


def write_table(assessment: Assessment, path: str | os.PathLike[str]) -> None:
    """Write `to_frame` as CSV (UTF-8), as a whole or not at all. A file that is there is replaced.

    Raises:
        OSError: it can't be written.
    """
    write_atomically(path, to_frame(assessment).to_csv(index=False).encode())
