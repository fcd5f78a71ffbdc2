"""What ``genkl report`` does: settings and files are checked, then the package is called."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from genkl.cli.files import (
    PredictionFile,
    check_columns,
    checked_destination,
    checked_source,
    in_words_of_the_command,
    open_predictions,
    read_labels,
    replacing,
    softmax_chunks,
)
from genkl.data.images import ImageFiles
from genkl.data.sources import DataNotFoundError
from genkl.report import KINDS, Assessment, assess, assess_folder, write_page, write_table
from genkl.report.assessment import check_settings
from genkl.report.folder import CHECKED, read_folder

ONLY_FOLDER = (
    "image_column", "image_suffix", "verified_column", "non_conforming_name", "no_label", "missing",
    "backbone", "weights", "size", "device",
)  # fmt: skip
ONLY_TABLE = ("id", "images", "features", "from_logits", "conforming")
RULE = (*CHECKED, "beta", "sigma", "num_vectors")


def report(options: argparse.Namespace) -> None:
    """Do what the parsed options ask for.

    Raises:
        ValueError, OSError: the message names the argument, its value and the remedy.
    """
    source = Path(options.source).expanduser()
    is_folder = source.is_dir()
    if not source.exists():
        raise FileNotFoundError(
            f"FOLDER_OR_TABLE {options.source} is not there; name a folder of images or a file of "
            "predictions"
        )
    kind = "a folder of images" if is_folder else "a table of predictions"
    for name in ONLY_TABLE if is_folder else ONLY_FOLDER:
        if getattr(options, name):
            raise ValueError(
                f"--{name.replace('_', '-')} is given and {options.source} is {kind}, which has no "
                "use for it; leave it out"
            )
    if options.max_thumbnails < 0:
        raise ValueError(f"--max-thumbnails is {options.max_thumbnails}; state 0 or more")
    check_settings(**{name: getattr(options, name) for name in CHECKED})
    page = checked_destination("--out", options.out, [], options.overwrite)
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out is {page}; the page's name must end in .html")
    table = Path(options.csv) if options.csv else page.with_suffix(".csv")
    if table.suffix.lower() != ".csv":
        raise ValueError(f"--csv is {table}; the table's name must end in .csv")
    read = [Path(one) for one in (options.labels, *([] if is_folder else [source])) if one]
    table = checked_destination(
        "--csv", table, [one for one in read if one.exists()], options.overwrite
    )
    settings = {name: getattr(options, name) for name in RULE if getattr(options, name) is not None}
    settings |= {"seed": options.seed, "permutation_invariant": options.permutation_invariant}
    if is_folder:
        found, images = _of_folder(source, options, settings)
    else:
        found, images = _of_table(source, options, settings)
    if found is None:
        plan = images | {"page": str(page), "table": str(table), "settings": settings}
        print(json.dumps(plan, indent=1) if options.json else _plan_text(plan))
        return
    with replacing("--csv", table) as temporary:
        write_table(found, temporary)
    write_page(
        found, page, images, title=options.title or source.resolve().name,
        max_thumbnails=options.max_thumbnails, csv_name=table.name, progress=_watched(),
    )  # fmt: skip
    of_kind = np.bincount(found.kinds(), minlength=len(KINDS)).tolist()
    counts = dict(zip(KINDS, of_kind, strict=True))
    if options.json:
        print(
            json.dumps(
                {
                    "images": len(found),
                    "kinds": counts,
                    "thresholds": vars(found.thresholds),
                    "left_out": found.left_out,
                    "page": str(page),
                    "table": str(table),
                },
                indent=1,
            )
        )
        return
    print(f"{options.source}: {len(found):,} images, {len(found.class_names)} classes")
    for name, text in found.facts.items():
        print(f"{name}: {text}")
    for name, count in counts.items():
        print(f"  {name:<26} {count:>8,}  {count / max(len(found), 1):6.1%}")
    if found.left_out:
        print(f"! {len(found.left_out)} could not be read, such as {found.left_out[0]}")
    print(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB), {table}")


def _of_folder(
    folder: Path, options: argparse.Namespace, settings: dict[str, Any]
) -> tuple[Assessment | None, Any]:
    """The assessment of a folder with its images; or None with the plan, for ``--dry-run``."""
    from genkl.features import EFFICIENTNET_LITE0, get_backbone

    if options.labels is None:
        for name in ("label_column", "image_column", "verified_column"):
            if getattr(options, name):
                raise ValueError(
                    f"--{name.replace('_', '-')} is given and no --labels; pass the table, or "
                    "leave it out"
                )
    backbone = EFFICIENTNET_LITE0
    if options.weights and not options.backbone:
        raise ValueError("--weights is given and no --backbone; name the network that it is of")
    if options.backbone:
        weights = {None: "default", "random": None}.get(options.weights, options.weights)
        backbone = get_backbone(options.backbone, weights, seed=options.seed)
    wanted = {
        "image_column": options.image_column,
        "label_column": options.label_column,
        "verified_column": options.verified_column,
        "image_suffix": options.image_suffix,
        "missing": options.missing,
        "device": options.device,
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    asked = dict(
        labels=options.labels, class_names=options.classes,
        non_conforming_name=options.non_conforming_name, no_label=options.no_label or (), **wanted,
    )  # fmt: skip
    if options.dry_run:
        device = asked.pop("device", None)
        files, present = read_folder(folder, **asked)
        return None, {
            "images": len(present), "classes": list(files.class_names),
            "backbone": backbone.name, "size": options.size or backbone.size,
            **({} if device is None else {"device": device}),
        }  # fmt: skip
    return assess_folder(
        folder, backbone=backbone, size=options.size, progress=_watched(), **asked, **settings
    )


def _of_table(
    path: Path, options: argparse.Namespace, settings: dict[str, Any]
) -> tuple[Assessment | None, Any]:
    """The assessment of predictions with their images, if any; or None with the plan."""
    source = checked_source("FOLDER_OR_TABLE", path)
    if options.images is not None:
        if not Path(options.images).expanduser().is_dir():
            raise DataNotFoundError(
                f"--images is {options.images}, which is no folder; correct the path"
            )
        if options.id is None:
            raise ValueError(
                "--images is given and no --id; name the column that holds paths relative to it"
            )
    if options.features is not None:
        if Path(options.features).suffix != ".npy":
            raise ValueError(f"--features is {options.features}; its name must end in .npy")
        checked_source("--features", options.features)
    labels = None if options.labels is None else checked_source("--labels", options.labels)
    if labels is None and options.label_column is not None:
        labels = source
    in_table = labels is not None and options.label_column and source.samefile(labels)
    predictions = open_predictions(
        "FOLDER_OR_TABLE", source, classes=options.classes,
        without=[options.label_column] if in_table else [], id_column=options.id,
    )  # fmt: skip
    given = labels if labels is None else read_labels(
        "--labels", labels, options.label_column, predictions, options.id
    )  # fmt: skip
    names = None
    if options.id is not None:
        names = [str(one) for one in predictions.column(options.id)]
    images = None if options.images is None else _images(options.images, names)
    features = _features(options.features, predictions)
    conforming = None
    if options.conforming is not None:
        conforming = open_predictions(
            "--conforming", options.conforming,
            classes=predictions.columns if Path(options.conforming).suffix != ".npy" else None,
        )  # fmt: skip
        if conforming.num_classes != predictions.num_classes:
            raise ValueError(
                f"{conforming} has {conforming.num_classes} classes and {predictions} has "
                f"{predictions.num_classes}; pass predictions of the same models"
            )
    if options.dry_run:
        return None, {
            "predictions": predictions.rows,
            "classes": list(predictions.classes or map(str, range(predictions.num_classes))),
            "labels": None if labels is None else str(labels),
        }
    try:
        known = None if conforming is None else _probs(conforming, options.from_logits)
        return assess(
            _probs(predictions, options.from_logits),
            given,
            class_names=predictions.classes,
            names=names,
            features=features,
            conforming_probs=known,
            **settings,
        ), images
    except ValueError as error:
        raise in_words_of_the_command(predictions, error) from error


def _probs(predictions: PredictionFile, from_logits: bool) -> np.ndarray:
    if from_logits:
        return np.concatenate([*softmax_chunks(predictions)])
    probs = predictions.read()
    check_columns(predictions, probs)
    return probs


def _images(folder: str, names: list[str]) -> ImageFiles:
    images = ImageFiles(Path(folder).expanduser(), names)
    if not any(images.path(row).is_file() for row in range(min(len(names), 100))):
        raise DataNotFoundError(
            f"--images {folder} holds none of the first files that --id names, such as {names[0]}; "
            "name the folder that these paths are relative to"
        )
    return images


def _features(path: str | None, predictions: PredictionFile) -> np.ndarray | None:
    if path is None:
        return None
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"--features {path} can't be read as .npy ({error}); write it with numpy.save"
        ) from error
    if features.ndim != 2 or len(features) != predictions.rows:
        raise ValueError(
            f"--features {path} has shape {features.shape} and {predictions} has "
            f"{predictions.rows} rows; pass one row of features for each"
        )
    if features.dtype.kind not in "fiu" or not np.isfinite(features).all():
        raise ValueError(f"--features {path} holds something else than finite numbers")
    return features


def _plan_text(plan: dict[str, Any]) -> str:
    def said(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {one}" for name, one in value.items())
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return "\n".join(f"{name:<12} {said(value)}" for name, value in plan.items())


def _watched() -> bool:
    """Whether somebody sees a bar."""
    return sys.stderr.isatty()
