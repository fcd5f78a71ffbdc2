"""What people decided about images: tables merged, and applied to a table of labels."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.metrics import cohen_kappa_score

from genkl.checks import TableError
from genkl.data.folder import NO_LABEL, Columns, refuse_repeats
from genkl.data.tables import Table, read_texts
from genkl.data.texts import read_header, tidy_name
from genkl.report.table import no_class_name

SOURCES = ("given", "decided", "suggested", "disputed")
"""What the column ``source`` says of a label."""
OWN = ("given", "source", "by")
"""Columns of a cleaned table that come with it."""


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
    frame = table.content.to_pandas()
    frame.index = _tidied(table, "image", "")
    return frame.reindex(columns=["verified", "suggestion"], fill_value="")


def _tidied(table: Table, column: str, suffix: str) -> pd.Index:
    """Names of images as they are on the disk; no two are the same."""
    names = [f"{tidy_name(name)}{suffix}" for name in table.texts(column).to_pylist()]
    texts = pa.table({column: pa.array(names, pa.string())})
    refuse_repeats(replace(table, content=texts, schema=texts.schema), column)
    return pd.Index(names)


def merge_decisions(people: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Merge what several people decided; where they differ, nothing is decided.

    Args:
        people: by name, each from `read_decisions`.

    Returns:
        One row per image, with ``decided`` (empty where nothing is), ``by`` (who, with semicolons),
        ``disputed`` and ``suggestion`` (of the first who has the image). And one row per two
        people, with the ``images`` that both decided, the share on which they ``agree``, and
        Cohen's ``kappa``.
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
        kappa = cohen_kappa_score(a, b) if len({*a, *b}) > 1 else np.nan
        rows.append((f"{first}, {second}", len(both), (a == b).mean(), kappa))
    return merged, pd.DataFrame(rows, columns=["people", "images", "agree", "kappa"])


def apply_decisions(
    labels: str | os.PathLike[str],
    people: Mapping[str, pd.DataFrame],
    *,
    suggestions: bool = False,
    class_names: Sequence[str] | None = None,
    **columns: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of labels with what people decided; other columns keep their values.

    Args:
        labels: a CSV file, see `genkl.data.folder.load_folder`, which is not changed.
        people: by name, each from `read_decisions`. What the table has as verified before is no
            decision of theirs.
        suggestions: take the report's suggestion where nobody decided or disputes, then or before.
        class_names: k names, where labels are their numbers, or don't have all of them.
        **columns: ``image_column``, ``label_column``, ``verified_column`` and ``image_suffix``, see
            `Columns`.

    Returns:
        The table, whose label column holds what was decided (-1 where no class fits). New are
        ``given`` (the label that came with the image), ``source`` (given, decided, suggested or
        disputed) and ``by``. A verified label is replaced where it was decided otherwise; no other
        image becomes verified, for suspects are no sample to choose thresholds by, or to test on.
        And the agreement, see `merge_decisions`.

    Raises:
        TableError: a bad line, or a column of its own that is called as a new one.
        ValueError: a decision about an image that isn't in the table, or for what is no class.
    """
    layout, path = Columns(**columns), Path(labels)
    frame = _table(path, layout)
    names, blank = frame.index, pd.Series("", frame.index)
    current, verified = frame[layout.label_column], frame.get(layout.verified_column, blank)
    new = {name: _without(said, verified) for name, said in people.items()}
    merged, agreement = merge_decisions(new)
    if len(unknown := merged.index[merged["decided"] != ""].difference(names)):
        raise ValueError(
            f"{path} has no {unknown[0]!r}, which somebody decided about ({len(unknown)} such "
            "images); apply decisions to the table that they are about"
        )
    given = frame.get("given", current)
    before, by = frame.get("source", blank + "given"), frame.get("by", blank)
    known = [*given.unique()] if class_names is None else [*class_names]
    none, found = no_class_name(known), merged.reindex(names)
    disputed = names.isin(merged.index[merged["disputed"]])
    decided = _labels(found["decided"].fillna(""), [none, *known], path)
    taken = before.isin(["given", "suggested"]) & (decided == "") & ~disputed & suggestions
    suggested = _labels(found["suggestion"].where(taken).fillna(""), [none, *known], path)
    if class_names is not None and not given.isin(class_names).any():
        numbers = {name: str(number) for number, name in enumerate(class_names)}
        decided, suggested = decided.replace(numbers), suggested.replace(numbers)
    label = decided.where(decided != "", suggested).replace(none, NO_LABEL)
    taken &= (suggested != "") & (label != current)
    kinds = {"decided": decided != "", "suggested": taken, "disputed": disputed}
    said = kinds["decided"] | disputed
    frame = frame.assign(
        **{layout.label_column: current.where(label == "", label)},
        given=given,
        source=np.select([*kinds.values()], [*kinds], before),
        by=by.where(~said & ~taken, "") + found["by"].fillna("").where(said, ""),
    )
    if layout.verified_column in frame:
        frame[layout.verified_column] = verified.where((verified == "") | (decided == ""), decided)
    return frame.reset_index(drop=True), agreement


def _table(path: Path, layout: Columns) -> pd.DataFrame:
    """Every column of a table of labels, as text, by the image's name on the disk."""
    needed, header = [layout.image_column, layout.label_column], read_header(path, str(path))
    table = read_texts(path, needed, [name for name in header if name not in needed])
    frame = table.content.to_pandas()[[*header]]
    own = [name for name in OWN if name in header]
    if own and not (len(own) == len(OWN) and frame["source"].isin(SOURCES).all()):
        problem = f"has a column {own[0]!r}, as the table to write has"
        raise TableError(str(path), problem, "give it another name")
    return frame.set_axis(_tidied(table, layout.image_column, layout.image_suffix))


def _without(said: pd.DataFrame, verified: pd.Series) -> pd.DataFrame:
    """What somebody decided, but for what was verified before, which the page repeats."""
    repeated = said["verified"] == verified.reindex(said.index)
    return said.assign(verified=said["verified"].where(~repeated, ""))


def _labels(texts: pd.Series, known: Sequence[str], path: Path) -> pd.Series:
    """Labels by name; spreadsheets write 3 as 3.0."""
    whole = texts.str.replace(r"^([0-9]+)\.0$", r"\1", regex=True)
    labels = texts.where(texts.isin(known), whole)
    for image, label in labels[~labels.isin(["", *known])].head(1).items():
        raise ValueError(
            f"{image!r} is decided or suggested to be {label!r}, which is no label of {path}; "
            "correct it, or pass class_names= with every class, if it is one"
        )
    return labels
