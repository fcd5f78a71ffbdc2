"""Predictions of a folder of images, cross-validated from frozen features, and its assessment."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from genkl.checks import check_positive
from genkl.data.folder import NO_LABEL, LabelledFiles, read_folder
from genkl.data.images import ImageFiles
from genkl.features import EFFICIENTNET_LITE0, Backbone, extract_features
from genkl.report.assessment import Assessment, Criteria, assess
from genkl.rule.neighbors import near_copies

FOLDS = 5
REPEATS = 3
ATTEMPTS = 50
"""Divisions that are tried until every class is learned in each."""
REGULARISATION = 10.0
"""C of the logistic regressions times the number of features (each of variance 1). Strong, for
labels that aren't trusted."""

CRITERIA = tuple(inspect.signature(Criteria).parameters)
NETWORK = ("features", "backbone", "size", "device", "cache_dir", "progress")


@dataclass(frozen=True)
class FolderPredictions:
    """Predictions of N images of a folder, each by models that saw neither its label nor its copy.

    Attributes:
        files: their names, class names, and what is said about them.
        probs: shape (N, k).
        features: that they were made from, shape (N, d).
        copies: the first row of each one's near copies, shape (N,), see `near_copies`.
        images: the files, to read.
        left_out: names of images that could not be read.
        told: how they were made, in words.
    """

    files: LabelledFiles
    probs: np.ndarray
    features: np.ndarray
    copies: np.ndarray
    images: ImageFiles
    left_out: tuple[str, ...]
    told: str

    def to_frame(self) -> pd.DataFrame:
        """Columns ``image``, ``label`` (-1 where there is none), and one for each class.

        Raises:
            ValueError: a class is called as one of the first two.
        """
        names = self.files.class_names
        check_column_names(names)
        labels = np.array([*names, NO_LABEL], object)[self.files.given]
        known = pd.DataFrame({"image": self.files.names.to_pylist(), "label": labels})
        return pd.concat([known, pd.DataFrame(self.probs, columns=names)], axis=1)


def check_column_names(class_names: Sequence[str]) -> None:
    """Refuse classes that a table of predictions can't tell from its other columns."""
    for name in {"image", "label"} & {*class_names}:
        raise ValueError(
            f"a class is called {name!r}, as a column of the table of predictions is; give it "
            "another name"
        )


def predict_folder(
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    features: np.ndarray | None = None,
    backbone: Backbone = EFFICIENTNET_LITE0,
    seed: int = 0,
    progress: bool = True,
    **asked: Any,
) -> FolderPredictions:
    """Predict every image of a folder from the labels of the others.

    A frozen network turns images into features (kept in the cache). Predictions are those of
    logistic regressions on the labels of *other* images, see `held_out_probs`; no fold parts near
    copies, nor images of one group. A verified label takes the place of the given one.

    Args:
        folder: of the images, with a sub-folder for each class if there is no table.
        labels: a CSV file, see `genkl.data.folder.load_folder`.
        features: of your own, shape (M, d), a row for each line of the table, or for each image in
            the order of their paths, folder by folder; None extracts them.
        backbone: the frozen network.
        seed: of the folds.
        progress: show bars.
        **asked: ``size``, ``device`` and ``cache_dir``, see `extract_features`; ``class_names``,
            ``missing`` and what the columns of the table are, see
            `genkl.data.folder.load_folder`.

    Returns:
        Predictions of the images that are there and can be read.

    Raises:
        DataNotFoundError: no such folder or table, no images, or files that are not there.
        ValueError: a bad line in the table, a class without images or with a single group, or
            features that don't fit.
    """
    shown = {name: asked.pop(name) for name in ("size", "device", "cache_dir") if name in asked}
    files, rows, taught = check_labels_of(folder, labels, **asked)
    images = ImageFiles(Path(folder).expanduser(), files.names).take(rows)
    if features is None:
        how = {"on_error": "skip", "progress": progress, **shown}
        features = extract_features(images, backbone, **how).numpy()
        eyes = f"{backbone.name} at {shown.get('size') or backbone.size} px"
    else:
        features, eyes = _own_features(features, files)[rows], "your own"
    readable = ~np.isnan(features[:, 0])
    left_out = tuple(images.name(row) for row in np.flatnonzero(~readable).tolist())
    rows, features, images = rows[readable], features[readable], images.take(readable)
    here = {name: getattr(files, name)[rows] for name in ("given", "verified", "is_nc")}
    groups = None if files.groups is None else files.groups[rows]
    names = pc.take(files.names, pa.array(rows))
    files, copies = replace(files, names=names, groups=groups, **here), near_copies(features)
    probs = held_out_probs(
        features,
        taught[readable],
        len(files.class_names),
        seed=seed,
        groups=copies if groups is None else _joined(copies, groups),
        class_names=files.class_names,
        progress=progress,
    )
    told = (
        f"logistic regressions on features of {eyes}, learned from the labels of other images "
        f"({FOLDS} folds, {REPEATS} times, averaged; seed {seed})"
    )
    return FolderPredictions(files, probs, features, copies, images, left_out, told)


def _own_features(features: np.ndarray, files: LabelledFiles) -> np.ndarray:
    features = np.asarray(features)
    if features.ndim != 2 or len(features) != len(files.names) or not features.shape[1]:
        raise ValueError(
            f"features has shape {features.shape} and {len(files.names)} images are listed; pass "
            "one row for each, in their order"
        )
    return features


def _joined(copies: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Groups of rows that neither of two divisions parts, shape (N,)."""
    count = len(copies)
    size = count + int(groups.max()) + 1
    links = coo_array((np.ones(count), (copies, count + groups)), shape=(size, size))
    return connected_components(links, directed=False)[1][copies]


def assess_folder(
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    **asked: Any,
) -> tuple[Assessment, ImageFiles]:
    """Assess a folder of images with labels, by the predictions of `predict_folder`.

    Images whose label is verified are those that are known to conform.

    Args:
        folder: of the images, with a sub-folder for each class if there is no table.
        labels: a CSV file, see `genkl.data.folder.load_folder`.
        **asked: options of `predict_folder`; criteria, see `Criteria`, whose ``seed`` is that of
            the folds, too.

    Returns:
        The assessment, whose ``image`` is a path relative to the folder, and the images in its
        order. Images that can't be read are left out of both and named in ``left_out``.

    Raises:
        DataNotFoundError: no such folder or table, no images, or files that are not there.
        ValueError: a bad line in the table, a class without images, or criteria out of range.
        TypeError: neither an option of the table nor a criterion.
    """
    judged = {name: asked.pop(name) for name in CRITERIA if name in asked}
    criteria = Criteria(**judged)
    columns = {name: value for name, value in asked.items() if name not in NETWORK}
    files, _, _ = check_labels_of(folder, labels, **columns)
    criteria.rule(len(files.class_names))
    made = predict_folder(folder, labels, seed=criteria.seed, **asked)
    found = assess(
        made.probs,
        made.files.given,
        class_names=made.files.class_names,
        names=made.files.names.to_pylist(),
        features=made.features,
        verified_labels=made.files.verified,
        is_nc=made.files.is_nc,
        **judged,
    )
    facts = {"Predictions": made.told, **found.facts}
    found = replace(found, facts=facts, left_out=made.left_out)
    return _with_copies(found, made.copies), made.images


def _with_copies(found: Assessment, copies: np.ndarray) -> Assessment:
    """Say which images are near copies, and of which."""
    names, is_copy = found.table["image"].to_numpy(), copies != np.arange(len(copies))
    told = f"{is_copy.sum():,} images, each nearly the same as an earlier one"
    return replace(
        found,
        table=found.table.assign(copy_of=np.where(is_copy, names[copies], "")),
        facts={**found.facts, "Near copies": f"{told}; predicted by who saw no copy"},
    )


def check_labels_of(
    folder: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None, **columns: Any
) -> tuple[LabelledFiles, np.ndarray, np.ndarray]:
    """What is in a folder, after all checks of `predict_folder` that need no features.

    Returns:
        The files, the rows of those that are there, and the labels that these teach.
    """
    files, rows = read_folder(folder, labels, **columns)
    taught = _taught(files, rows)
    _check_counts(taught, len(files.class_names), files.class_names)
    if files.groups is not None:
        pairs = np.unique(np.stack([taught, files.groups[rows]])[:, taught >= 0], axis=1)
        if len(alone := np.flatnonzero(np.bincount(pairs[0]) == 1)):
            raise ValueError(
                f"group_column is {columns['group_column']!r}, and all images of "
                f"{files.class_names[alone[0]]!r} are in one group, so that nothing predicts them; "
                "leave the column or the class out"
            )
    return files, rows, taught


def held_out_probs(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int = 0,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    groups: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Predictions of each row by models that never saw its label, nor that of a copy.

    The rows with a label are divided into folds, and each is predicted by logistic regression on
    the others, averaged over several divisions. Rows without a label are predicted by all of them.

    Args:
        features: shape (N, d).
        labels: shape (N,), -1 where there is none.
        num_classes: k.
        seed: of the divisions.
        folds: at least 2.
        repeats: divisions, at least 1.
        groups: of rows that no fold parts, such as near copies or images of one sender, shape (N,);
            the label of a group's first row counts for shares. A class that is in a single group
            has its rows parted: nothing would predict it. None parts any two rows.
        class_names: k names, for messages.
        progress: show a bar.

    Returns:
        Shape (N, k), float64.

    Raises:
        ValueError: fewer than two classes with a label, a class with a single one, bad numbers, or
            groups that leave some class nothing to learn from, however they are divided.

    Source: cross-validated predictions, as confident learning :cite:p:`northcutt2021confident` uses
    them; their average over models is what GenKL scores.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from tqdm.auto import tqdm

    check_positive("repeats", repeats)
    if folds < 2:
        raise ValueError(f"folds is {folds}; it takes at least 2 to hold something out")
    _check_counts(labels, num_classes, class_names)
    labelled, unlabelled = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
    probs = np.zeros((len(features), num_classes))
    counted = np.zeros((len(features), 1))
    for repeat in tqdm(range(repeats), "predictions", disable=not progress):
        asked = None if groups is None else np.asarray(groups)[labelled]
        for held_out in _parts(labels[labelled], asked, folds, seed * repeats + repeat):
            learned = np.setdiff1d(labelled, labelled[held_out])
            model = make_pipeline(
                StandardScaler(),
                LogisticRegression(C=REGULARISATION / features.shape[1], max_iter=300),
            ).fit(features[learned], labels[learned])
            rows = np.concatenate([labelled[held_out], unlabelled])
            probs[np.ix_(rows, model[-1].classes_)] += model.predict_proba(features[rows])
            counted[rows] += 1
    probs /= counted
    return probs / probs.sum(axis=1, keepdims=True)


def _parts(
    labels: np.ndarray, groups: np.ndarray | None, folds: int, seed: int
) -> Iterator[np.ndarray]:
    """Which rows each fold holds out: groups as wholes, of every label a share, and never all."""
    from sklearn.model_selection import KFold, StratifiedKFold

    rows = np.arange(len(labels))
    if groups is not None:  # a class in one group: its rows are parted
        groups = np.unique(groups, return_inverse=True)[1]
        pairs = np.unique(np.stack([labels, groups]), axis=1)
        alone = np.bincount(pairs[0])[pairs[0]] == 1
        parted = np.isin(groups, pairs[1, alone])
        groups = np.where(parted, len(rows) + rows, groups)
    _, leads, group = np.unique(
        rows if groups is None else groups, return_index=True, return_inverse=True
    )
    most = int(np.bincount(labels[leads]).max())
    kind, folds = (
        (StratifiedKFold, min(folds, most)) if most > 1 else (KFold, min(folds, len(leads)))
    )
    for attempt in range(ATTEMPTS):
        division = kind(folds, shuffle=True, random_state=seed + attempt * 1_000_003)
        with warnings.catch_warnings():  # a rare class is not in every fold
            warnings.filterwarnings("ignore", message="The least populated class")
            parts = [np.isin(group, held) for _, held in division.split(leads, labels[leads])]
        if all(len(np.unique(labels[~part])) == len(np.unique(labels)) for part in parts):
            return iter(parts)
    raise ValueError(
        f"groups leave a class nothing to learn from in {ATTEMPTS} divisions into {folds} folds: "
        "too few groups have it, or near copies join them; divide by something finer"
    )


def _taught(files: LabelledFiles, rows: np.ndarray) -> np.ndarray:
    """What the predictions learn from: the verified label, else the given one."""
    taught = np.where(files.verified[rows] >= 0, files.verified[rows], files.given[rows])
    taught[files.is_nc[rows]] = -1
    return taught


def _check_counts(labels: np.ndarray, num_classes: int, class_names: Sequence[str] | None) -> None:
    """Refuse fewer than two classes, or two images of one."""
    if num_classes < 2:
        raise ValueError(
            f"class_names has {num_classes} class; a prediction needs 2, so give other images "
            "another label"
        )
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    if (counts < 2).any():
        rare = int(counts.argmin())
        name = f"class {rare}" if class_names is None else repr(class_names[rare])
        remedy = "add images, or leave the class out of class_names"
        if counts[rare]:
            remedy = "add images, or take it out: no_label= for a table, else move its folder away"
        raise ValueError(
            f"labels has {counts[rare]} of {name}; each class needs 2 images or more, so that one "
            f"can be predicted from the others: {remedy}"
        )
