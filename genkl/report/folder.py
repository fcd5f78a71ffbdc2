"""Assessment of a folder of images: cross-validated predictions from frozen features."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genkl.checks import check_positive
from genkl.data.folder import LabelledFiles, read_folder
from genkl.data.images import ImageFiles
from genkl.features import EFFICIENTNET_LITE0, Backbone, extract_features
from genkl.report.assessment import Assessment, Criteria, assess
from genkl.rule.neighbors import near_copies

FOLDS = 5
REPEATS = 3
REGULARISATION = 10.0
"""C of the logistic regressions times the number of features (each of variance 1). Strong, for
labels that aren't trusted."""

CRITERIA = tuple(inspect.signature(Criteria).parameters)


def assess_folder(
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    backbone: Backbone = EFFICIENTNET_LITE0,
    size: int | None = None,
    device: Any = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **asked: Any,
) -> tuple[Assessment, ImageFiles]:
    """Assess a folder of images with labels.

    A frozen network turns images into features (kept in the cache). Predictions are those of
    logistic regressions on the labels of the *other* images, see `held_out_probs`. A verified
    label takes the place of the given one, and images whose label is verified are those that are
    known to conform.

    Args:
        folder: of the images, with a sub-folder for each class if there is no table.
        labels: a CSV file, see `genkl.data.folder.load_folder`.
        backbone: the frozen network.
        size: its input in pixels; None is its own.
        device: "auto", "cpu", "cuda", ...
        cache_dir: of the features.
        progress: show bars.
        **asked: ``class_names``, ``missing`` and what the columns of the table are, see
            `genkl.data.folder.load_folder`; criteria, see `Criteria`, whose ``seed`` is that of
            the folds, too.

    Returns:
        The assessment, whose ``image`` is a path relative to the folder, and the images in its
        order. Images that can't be read are left out of both and named in ``left_out``.

    Raises:
        DataNotFoundError: no such folder or table, no images, or files that are not there.
        ValueError: a bad line in the table, a class without images, or criteria out of range.
        TypeError: neither an option of the table nor a criterion.
    """
    judged, files, rows, taught = check_folder(folder, labels, **asked)
    class_names, seed = files.class_names, Criteria(**judged).seed
    images = ImageFiles(Path(folder).expanduser(), files.names).take(rows)
    shown = {"size": size, "device": device, "cache_dir": cache_dir, "progress": progress}
    features = extract_features(images, backbone, on_error="skip", **shown).numpy()
    readable = ~np.isnan(features[:, 0])
    left_out = tuple(images.name(row) for row in np.flatnonzero(~readable).tolist())
    rows, features, images = rows[readable], features[readable], images.take(readable)
    copies = near_copies(features)
    probs = held_out_probs(
        features,
        taught[readable],
        len(class_names),
        seed=seed,
        groups=copies,
        class_names=class_names,
        progress=progress,
    )
    found = assess(
        probs,
        files.given[rows],
        class_names=class_names,
        names=pc.take(files.names, pa.array(rows)).to_pylist(),
        features=features,
        verified_labels=files.verified[rows],
        is_nc=files.is_nc[rows],
        **judged,
    )
    facts = {"Predictions": _told(backbone, size, seed), **found.facts}
    return _with_copies(replace(found, facts=facts, left_out=left_out), copies), images


def _with_copies(found: Assessment, copies: np.ndarray) -> Assessment:
    """Say which images are near copies, and of which."""
    names, is_copy = found.table["image"].to_numpy(), copies != np.arange(len(copies))
    told = f"{is_copy.sum():,} images, each nearly the same as an earlier one"
    return replace(
        found,
        table=found.table.assign(copy_of=np.where(is_copy, names[copies], "")),
        facts={**found.facts, "Near copies": f"{told}; predicted by who saw no copy"},
    )


def check_folder(
    folder: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None, **asked: Any
) -> tuple[dict[str, Any], LabelledFiles, np.ndarray, np.ndarray]:
    """What is in a folder, after all checks of `assess_folder` that need no features.

    Returns:
        The criteria, the files, the rows of those that are there, and the labels that these teach.
    """
    judged = {name: asked.pop(name) for name in CRITERIA if name in asked}
    criteria = Criteria(**judged)
    files, rows = read_folder(folder, labels, **asked)
    taught = _taught(files, rows)
    _check_counts(taught, len(files.class_names), files.class_names)
    criteria.rule(len(files.class_names))
    return judged, files, rows, taught


def _told(backbone: Backbone, size: int | None, seed: int) -> str:
    return (
        f"logistic regressions on features of {backbone.name} at {size or backbone.size} px, "
        f"learned from the labels of other images ({FOLDS} folds, {REPEATS} times, averaged; seed "
        f"{seed})"
    )


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
            the label of a group's first row counts for shares. None parts any two rows.
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
    """Which rows each fold holds out: groups as wholes, of every label a share."""
    from sklearn.model_selection import StratifiedKFold

    rows = np.arange(len(labels))
    _, leads, group = np.unique(
        rows if groups is None else groups, return_index=True, return_inverse=True
    )
    if np.bincount(labels[leads]).max() < 2:  # nothing but copies: then they are parted
        leads = group = rows
    folds = min(folds, int(np.bincount(labels[leads]).max()))  # no class is in each otherwise
    division = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a rare class is not in every fold
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = [held_out for _, held_out in division.split(leads, labels[leads])]
    return (np.isin(group, part) for part in parts)


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
