"""From a folder of images to predictions that no image's own label has a part in."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from genkl.checks import check_beta, check_positive
from genkl.data.folder import (
    VERIFIED_COLUMN,
    LabelledFiles,
    Table,
    find_present,
    find_table,
    read_labelled,
    read_table,
    read_tree,
)
from genkl.data.images import ImageFiles
from genkl.data.sources import DataNotFoundError
from genkl.features import EFFICIENTNET_LITE0, Backbone, extract_features
from genkl.report.assessment import Assessment, assess, check_settings
from genkl.rule.divergence import uniform_like_vectors

FOLDS = 5
REPEATS = 3
REGULARISATION = 10.0
"""C of the logistic regressions times the number of features (each of variance 1). Strong, for
labels that aren't trusted."""


CHECKED = ("alpha", "max_flag_rate", "min_gap", "min_top_two_mass", "max_distance")
"""Settings that are checked before features are extracted."""


@dataclass(frozen=True)
class KeptTable(Table):
    """Some rows of a table, which still know their lines.

    Attributes:
        rows: positions in the whole table, ascending.
    """

    rows: np.ndarray

    def error(self, row: int, problem: str) -> ValueError:
        """What is wrong with a row, with the file and the line."""
        return super().error(int(self.rows[row]), problem)


def assess_folder(
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    image_column: str = "image",
    label_column: str = "label",
    verified_column: str = VERIFIED_COLUMN,
    class_names: Sequence[str] | None = None,
    non_conforming_name: str | None = None,
    no_label: Sequence[str] = (),
    image_suffix: str = "",
    missing: str = "raise",
    backbone: Backbone = EFFICIENTNET_LITE0,
    size: int | None = None,
    device: str | torch.device = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> tuple[Assessment, ImageFiles]:
    """Assess a folder of images with labels.

    A frozen network turns images into features (kept in the cache). Predictions are those of
    logistic regressions on the labels of the *other* images, see `held_out_probs`. A verified
    label takes the place of the given one, and images whose label is verified are those that are
    known to conform.

    Args:
        folder: of the images, with a sub-folder for each class if there is no table.
        labels: a CSV file, see `genkl.data.folder.load_folder`.
        image_column: paths, relative to the folder.
        label_column: given labels.
        verified_column: labels that somebody checked; empty where nobody did.
        class_names: k names; None takes the labels that occur.
        non_conforming_name: what the verified column says where no class fits.
        no_label: what the label column says where an image has no label, such as "Not sure".
        image_suffix: what the paths in the table lack, such as ".jpg".
        missing: "raise" or "skip", for files in the table that are not there.
        backbone: the frozen network.
        size: its input in pixels; None is its own.
        device: "auto", "cpu", "cuda", ...
        cache_dir: of the features.
        seed: of the folds, the vectors and the sample that distances are measured to.
        progress: show bars.
        **settings: of `assess`.

    Returns:
        The assessment, whose ``image`` is a path relative to the folder, and the images in its
        order. Images that can't be read are left out of both and named in ``left_out``.

    Raises:
        DataNotFoundError: no such folder or table, no images, or files that are not there.
        ValueError: a bad line in the table, a class without images, or bad settings.
    """
    check_settings(**{name: settings[name] for name in CHECKED if name in settings})
    root = Path(folder).expanduser()
    files, present = read_folder(
        root, labels, image_column=image_column, label_column=label_column,
        verified_column=verified_column, class_names=class_names,
        non_conforming_name=non_conforming_name, no_label=no_label, image_suffix=image_suffix,
        missing=missing,
    )  # fmt: skip
    _check_before_work(_taught(files, present), files.class_names, settings)
    images = ImageFiles(root, files.names)
    features = extract_features(
        images.take(present), backbone, size=size, device=device, cache_dir=cache_dir,
        on_error="skip", progress=progress,
    ).numpy()  # fmt: skip
    readable = ~np.isnan(features[:, 0])
    left_out = tuple(images.name(row) for row in present[~readable].tolist())
    rows, features = present[readable], features[readable]
    given, verified, is_nc = files.given[rows], files.verified[rows], files.is_nc[rows]
    probs = held_out_probs(
        features, _taught(files, rows), len(files.class_names), seed=seed, progress=progress,
        class_names=files.class_names,
    )  # fmt: skip
    chosen = images.take(rows)
    found = assess(
        probs,
        given,
        class_names=files.class_names,
        names=[str(name) for name in pc.take(files.names, pa.array(rows)).to_pylist()],
        features=features,
        verified_labels=verified,
        is_nc=is_nc,
        seed=seed,
        **settings,
    )
    facts = {
        "Predictions": (
            f"logistic regressions on features of {backbone.name} at "
            f"{backbone.size if size is None else size} px, learned from the labels of other "
            f"images ({FOLDS} folds, {REPEATS} times, averaged; seed {seed})"
        )
    }
    return replace(found, facts=facts | found.facts, left_out=left_out), chosen


def read_folder(
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    image_column: str = "image",
    label_column: str = "label",
    verified_column: str = VERIFIED_COLUMN,
    class_names: Sequence[str] | None = None,
    non_conforming_name: str | None = None,
    no_label: Sequence[str] = (),
    image_suffix: str = "",
    missing: str = "raise",
) -> tuple[LabelledFiles, np.ndarray]:
    """Read what is known about the images of a folder, and look which files are there.

    Args and errors are those of `assess_folder`.

    Returns:
        Files with labels, and the positions of those that are there.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataNotFoundError(f"folder is {str(folder)!r}, which is no folder; correct the path")
    if labels is None:
        if no_label or image_suffix or non_conforming_name is not None:
            raise ValueError(
                "no_label, image_suffix and non_conforming_name need a table; pass labels= with a "
                "CSV file"
            )
        files = read_tree(root, class_names)
        present = np.arange(len(files.names))
    else:
        table = read_table(
            find_table(root, labels),
            [image_column, label_column],
            verified_column,
            optional=verified_column == VERIFIED_COLUMN,
        )
        if image_suffix:
            lacking = table.columns[image_column]
            table.columns[image_column] = pc.binary_join_element_wise(lacking, image_suffix, "")
        files = _labelled(
            table, image_column, label_column, verified_column, class_names, non_conforming_name,
            no_label,
        )  # fmt: skip
        present = find_present(root, files.names, table.path, missing)
    return files, present


def held_out_probs(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int = 0,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    class_names: Sequence[str] | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Predictions of each row by models that never saw its label.

    The rows with a label are divided into folds, and each is predicted by logistic regression on
    the others, averaged over several divisions. Rows without a label are predicted by all of them.

    Args:
        features: shape (N, d).
        labels: shape (N,), -1 where there is none.
        num_classes: k.
        seed: of the divisions.
        folds: at least 2.
        repeats: divisions, at least 1.
        class_names: k names, for messages.
        progress: show a bar.

    Returns:
        Shape (N, k), float64.

    Raises:
        ValueError: fewer than two classes with a label, a class with a single one, or bad numbers.

    Source: cross-validated predictions, as confident learning :cite:p:`northcutt2021confident` uses
    them; their average over models is what GenKL scores.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from tqdm.auto import tqdm

    check_positive("repeats", repeats)
    if folds < 2:
        raise ValueError(f"folds is {folds}; it takes at least 2 to hold something out")
    most = _check_counts(labels, num_classes, class_names)
    folds = min(folds, most)  # no class has an image in each fold otherwise
    labelled = np.flatnonzero(labels >= 0)
    unlabelled = np.flatnonzero(labels < 0)
    probs = np.zeros((len(features), num_classes))
    with tqdm(total=folds * repeats, desc="predictions", disable=not progress, unit="fit") as bar:
        for repeat in range(repeats):
            division = StratifiedKFold(folds, shuffle=True, random_state=seed * repeats + repeat)
            with warnings.catch_warnings():  # a rare class is not in every fold
                warnings.filterwarnings("ignore", message="The least populated class")
                parts = list(division.split(labelled, labels[labelled]))
            for learned, held_out in parts:
                model = make_pipeline(
                    StandardScaler(),
                    LogisticRegression(C=REGULARISATION / features.shape[1], max_iter=300),
                ).fit(features[labelled[learned]], labels[labelled[learned]])
                classes = model[-1].classes_
                at = labelled[held_out]
                probs[np.ix_(at, classes)] += model.predict_proba(features[at]) / repeats
                if len(unlabelled):
                    share = model.predict_proba(features[unlabelled]) / (repeats * folds)
                    probs[np.ix_(unlabelled, classes)] += share
                bar.update()
    return probs / probs.sum(axis=1, keepdims=True)


def _taught(files: LabelledFiles, rows: np.ndarray) -> np.ndarray:
    """What the predictions learn from: the verified label, else the given one."""
    taught = np.where(files.verified[rows] >= 0, files.verified[rows], files.given[rows])
    taught[files.is_nc[rows]] = -1
    return taught


def _check_before_work(
    labels: np.ndarray, class_names: Sequence[str], settings: dict[str, Any]
) -> None:
    _check_counts(labels, len(class_names), class_names)
    if settings.get("beta") is not None:
        check_beta(settings["beta"], len(class_names))
    uniform_like_vectors(
        len(class_names), settings.get("num_vectors", 1), settings.get("sigma", 0.05), 0
    )


def _check_counts(labels: np.ndarray, num_classes: int, class_names: Sequence[str] | None) -> int:
    """Refuse fewer than two classes, or two images of one; the most of any class otherwise."""
    if num_classes < 2:
        raise ValueError(
            f"class_names has {num_classes} class; a prediction needs 2, so give other images "
            "another label"
        )
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    if (counts < 2).any():
        rare = int(counts.argmin())
        name = f"class {rare}" if class_names is None else repr(class_names[rare])
        raise ValueError(
            f"labels has {counts[rare]} of {name}; each class needs 2 images or more, so that one "
            "can be predicted from the others: add images, or leave the class out of class_names"
        )
    return int(counts.max())


def _labelled(
    table: Table,
    image_column: str,
    label_column: str,
    verified_column: str,
    class_names: Sequence[str] | None,
    non_conforming_name: str | None,
    no_label: Sequence[str],
) -> LabelledFiles:
    """What a table says, where some labels say that there is none."""
    given = table.columns[label_column]
    without = pc.is_in(given, pa.array([*no_label], pa.string())).to_numpy(zero_copy_only=False)
    for name in no_label:
        if not pc.any(pc.equal(given, name)).as_py():
            raise ValueError(
                f"no_label names {name!r}, which no line of {table.path} has; correct or drop it"
            )
    kept = np.flatnonzero(~without)
    some = KeptTable(
        table.path, {name: column.take(kept) for name, column in table.columns.items()}, kept
    )
    found = read_labelled(
        some, image_column, label_column, verified_column, None, class_names, non_conforming_name
    )
    if not without.any():
        return found
    count = len(without)
    whole = {"given": np.full(count, -1), "verified": np.full(count, -1),
             "is_nc": np.zeros(count, bool)}  # fmt: skip
    for name, values in whole.items():
        values[kept] = getattr(found, name)
    return LabelledFiles(
        names=table.columns[image_column], class_names=found.class_names, table=table, **whole
    )
