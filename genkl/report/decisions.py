"""What people decided about images: tables merged, and applied to a table of labels."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from genkl.data.folder import NO_LABEL, Columns, refuse_repeats
from genkl.data.tables import read_texts
from genkl.data.texts import read_header, tidy_name
from genkl.report.table import no_class_name


def read_decisions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """What somebody decided: a table that the page of the report saved.

    Args:
        path: a CSV file with the columns ``image`` and ``verified``.

    Returns:
        Columns ``verified`` (empty where nothing was decided) and ``suggestion``, by image.

    Raises:
        TableError: a column that is missing, or an image that is there twice.
    """
    table = read_texts(path, ["image", "verified"], ["suggestion"])
    refuse_repeats(table, "image")
    frame = table.content.to_pandas()
    frame.index = pd.Index(frame.pop("image").map(tidy_name), name="image")
    return frame.reindex(columns=["verified", "suggestion"], fill_value="")


def merge_decisions(people: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Merge what several people decided; where they differ, nothing is decided.

    Args:
        people: by name, each from `read_decisions`.

    Returns:
        By image: ``decided`` (empty where nothing is), ``by`` (who, with semicolons), ``disputed``,
        ``suggestion`` (of the first who has the image). And for each two people: ``images`` that
        both decided, the share on which they ``agree``, and Cohen's ``kappa``.
    """
    said = pd.DataFrame({name: frame["verified"] for name, frame in people.items()})
    suggested = pd.DataFrame({name: frame["suggestion"] for name, frame in people.items()})
    said = said.where(said != "")
    opinions = said.nunique(axis=1)
    names = np.array([f";{name}" for name in people], object)
    merged = pd.DataFrame(
        {
            "decided": said.bfill(axis=1).iloc[:, 0].where(opinions == 1, ""),
            "by": said.notna().astype(object).dot(names).str[1:],
            "disputed": opinions > 1,
            "suggestion": suggested.bfill(axis=1).iloc[:, 0],
        }
    )
    rows = []
    for first, second in itertools.combinations(people, 2):
        both = said[[first, second]].dropna()
        a, b = both[first], both[second]
        kappa = cohen_kappa_score(a, b) if len(both) and len({*a, *b}) > 1 else np.nan
        rows.append((f"{first}, {second}", len(both), (a == b).mean(), kappa))
    return merged, pd.DataFrame(rows, columns=["people", "images", "agree", "kappa"])


def apply_decisions(
    labels: str | os.PathLike[str],
    merged: pd.DataFrame,
    *,
    suggestions: bool = False,
    **columns: Any,
) -> pd.DataFrame:
    """A table of labels with what was decided; every other column stays as it is.

    Args:
        labels: a CSV file, see `genkl.data.folder.load_folder`, which is not changed.
        merged: from `merge_decisions`.
        suggestions: take the report's suggestion where nobody decided and nobody disputes.
        **columns: ``image_column``, ``label_column`` and ``image_suffix``, see `Columns`.

    Returns:
        The label column holds what was decided (-1 where no class fits); new are ``given`` (the
        label that came with the image), ``source`` ("given", "decided", "suggested" or "disputed")
        and ``by``. A column ``verified`` is left as it is: suspects that somebody looked at are no
        sample to choose thresholds by, or to test on.

    Raises:
        TableError: a bad line; the message says which.
        ValueError: a decision about an image that isn't in the table, or for what is no class.
    """
    layout, path = Columns(**columns), Path(labels)
    image, label, header = layout.image_column, layout.label_column, read_header(path, str(path))
    table = read_texts(
        path, [image, label], [name for name in header if name not in (image, label)]
    )
    refuse_repeats(table, image)
    frame = table.content.to_pandas()[[name for name in header if name]]
    names = frame[image].map(tidy_name) + layout.image_suffix
    if len(unknown := merged.index[merged["decided"] != ""].difference(names)):
        raise ValueError(
            f"{path} has no {unknown[0]!r}, which somebody decided about ({len(unknown)} such "
            "images); apply decisions to the table that they are about"
        )
    given = frame.get("given", frame[label])
    none = no_class_name(known := [*given.unique()])
    found = merged.reindex(names).reset_index(drop=True)
    decided, by, suggested = (found[name].fillna("") for name in ("decided", "by", "suggestion"))
    disputed = names.isin(merged.index[merged["disputed"]])
    if (bad := ~decided.isin(["", none, *known])).any():
        row = int(bad.argmax())
        raise ValueError(
            f"{names[row]!r} was decided to be {decided[row]!r}, which is no label of {path}; "
            "correct it there"
        )
    taken = (decided == "") & ~disputed & (suggested != "") & suggestions
    new = decided.where(~taken, suggested)
    before = frame.get("source", pd.Series("given", frame.index))
    kinds = {"decided": decided != "", "suggested": taken, "disputed": disputed}
    changes = {
        label: frame[label].where(new == "", new.replace(none, NO_LABEL)),
        "given": given,
        "source": np.select([*kinds.values()], [*kinds], before),
        "by": by.where(by != "", frame.get("by", "")),
    }
    return frame.assign(**changes)
