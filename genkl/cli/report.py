"""``genkl report``: what to look at in a folder of images, or a table of predictions."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from genkl.cli.options import add_command, flag, given_of, print_facts, print_json
from genkl.cli.predict import (
    FolderOptions,
    LabelOptions,
    announce,
    of_folder,
    plan_of,
    read_features,
    watched,
)
from genkl.data.sources import DataNotFoundError

if TYPE_CHECKING:
    import numpy as np

    from genkl.data.images import ImageFiles
    from genkl.data.tables import Predictions
    from genkl.report import Assessment

DESCRIPTION = """\
Write one HTML page, and a table, that show what to look at in images and labels you don't trust:

  looks ambiguous           non-conforming (critical alpha >= alpha), and like images that conform
  looks out of distribution non-conforming, and unlike them
  label likely wrong        conforming, and other images with this look have another label
  looks fine                the rest

The page needs no server and no network: images by class and by kind, sortable, with thresholds to
move, and decisions to take by keyboard, which its own table holds as verified labels.

From a folder, a frozen network turns images into features, and each image is predicted from the
labels of the others, by cross-validation. From a table, predictions are yours: they must come from
models that did not learn the label that they judge."""

EPILOG = """\
examples:
  genkl report photographs
  genkl report photographs --labels labels.csv --no-label "Not sure" --out look.html
  genkl report predictions.csv --id image --labels labels.csv --images photographs
  genkl report probs.npy --labels given.npy --features features.npy --conforming validation.npy"""


SOURCE = """\
folder of images; or predictions as 'genkl identify' reads them: .npy (N, k), .csv or .parquet with
a column for each class"""


class TableOptions:
    """A table of predictions.

    Attributes:
        id (COLUMN): column that names the rows; with --images, paths relative to it (default:
            numbers)
        images (FOLDER): where the images are (default: none are shown)
        from_logits: apply a softmax first (default: the rows are probabilities)
        normalize: divide each row by its sum, such as where probabilities were rounded (default:
            rows must sum to 1)
        conforming (FILE): predictions for instances known to conform that no model learned from;
            alpha is chosen by them (default: none)
    """

    id: str | None = None
    images: str | None = None
    from_logits: bool = False
    normalize: bool = False
    conforming: str | None = None


class CriteriaOptions:
    """What is flagged (the page can move the thresholds).

    Attributes:
        alpha (NUMBER): greater than 0, larger flags fewer (default: keeps within --max-flag-rate)
        max_flag_rate (SHARE): of the images known to conform that may be flagged; where too few are
            known, of all (default: 0.05)
        beta (NUMBER): in [0, 1/k) (default: 0.5/k)
        sigma (NUMBER): spread of the uniform-like vectors (default: 0.05)
        num_vectors (N): how many of them (default: 20)
        permutation_invariant: use every permutation of every vector (default: the vectors as drawn)
        min_gap (PROBABILITY): a label is likely wrong if another class has so much more (default:
            calls as many wrong as are confidently of another class)
        max_distance (NUMBER): farther from images that conform is out of distribution (default:
            their median)
        min_top_two_mass (SHARE): without features, ambiguous is what gives two classes so much
            (default: 0.9)
        seed (N): of the vectors, the folds and the sample that distances are measured to (default:
            %(default)s)
    """

    alpha: float | None = None
    max_flag_rate: float | None = None
    beta: float | None = None
    sigma: float | None = None
    num_vectors: int | None = None
    permutation_invariant: bool = False
    min_gap: float | None = None
    max_distance: float | None = None
    min_top_two_mass: float | None = None
    seed: int = 0


class OutputOptions:
    """Output.

    Attributes:
        out (FILE.html): the page (default: %(default)s)
        csv (FILE.csv): the table (default: beside the page, with its name)
        title (TEXT): of the page (default: the name of FOLDER_OR_TABLE)
        max_thumbnails (N): images that the page holds itself, the ones to look at first; the others
            it shows from their files (default: %(default)s, about 10 MB)
        overwrite: replace both files (default: refuse to)
        dry_run: check everything that can be checked at once, say what would be done, do nothing
            else (default: do it)
        json: print for programs (default: for people)
    """

    out: str = "report.html"
    csv: str | None = None
    title: str | None = None
    max_thumbnails: int = 3000
    overwrite: bool = False
    dry_run: bool = False
    json: bool = False


Work = tuple[Callable[[], dict[str, Any]], Callable[[], "tuple[Assessment, ImageFiles | None]"]]
"""What is there, for ``--dry-run``; and the assessment, with the images where there are any."""


def add_parser(areas: Any) -> None:
    """Add the command, see `add_command`."""
    about = "show what to look at in a folder of images, as one HTML page and a table"
    groups = (LabelOptions, FolderOptions, TableOptions, CriteriaOptions, OutputOptions)
    texts = {"help": about, "description": DESCRIPTION, "epilog": EPILOG}
    parser = add_command(areas, "report", groups, ("source", "FOLDER_OR_TABLE", SOURCE), **texts)
    spoken = {"class_names": "--classes", "folder": "FOLDER_OR_TABLE"}
    parser.set_defaults(command=_report, spoken=spoken)


def _report(options: argparse.Namespace) -> None:
    from genkl.report import Criteria, write_page

    source = Path(options.source).expanduser()
    if not source.exists():
        raise FileNotFoundError(
            f"FOLDER_OR_TABLE {options.source} is not there; name a folder of images or a file of "
            "predictions"
        )
    is_folder = source.is_dir()
    kind = "a folder of images" if is_folder else "a table of predictions"
    for name in get_type_hints(TableOptions if is_folder else FolderOptions):
        if getattr(options, name):
            raise ValueError(
                f"{flag(name)} is given and {options.source} is {kind}, which has no use for it; "
                "leave it out"
            )
    if options.max_thumbnails < 0:
        raise ValueError(f"--max-thumbnails is {options.max_thumbnails}; state 0 or more")
    criteria = given_of(options, get_type_hints(CriteriaOptions))
    Criteria(**criteria)
    page, table = _destinations(options, source)
    plan, assessed = (_of_folder if is_folder else _of_table)(source, options, criteria)
    if options.dry_run:
        told = {"page": str(page), "table": str(table), "settings": criteria}
        print_facts(plan() | told, options.json)
        return
    found, images = assessed()
    write_page(
        found,
        page,
        images,
        title=options.title or source.resolve().name,
        max_thumbnails=options.max_thumbnails,
        csv_name=table.name,
        table=table,
        progress=watched(),
    )
    _show(found, page, table, options)


def _destinations(options: argparse.Namespace, source: Path) -> tuple[Path, Path]:
    """Where the page and the table go; neither is a file to read from."""
    from genkl.cli.files import checked_destination, files_read

    read = files_read(options, source)
    page = checked_destination("--out", options.out, read, options.overwrite)
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out is {page}; the page's name must end in .html")
    table = Path(options.csv) if options.csv else page.with_suffix(".csv")
    if table.suffix.lower() != ".csv":
        raise ValueError(f"--csv is {table}; the table's name must end in .csv")
    return page, checked_destination("--csv", table, read, options.overwrite)


def _of_folder(folder: Path, options: argparse.Namespace, criteria: dict[str, Any]) -> Work:
    from genkl.report import Criteria, assess_folder
    from genkl.report.folder import check_labels_of

    network, columns = of_folder(options)

    def plan() -> dict[str, Any]:
        files, present, _ = check_labels_of(folder, options.labels, **columns)
        Criteria(**criteria).rule(len(files.class_names))
        return plan_of(files, present, network)

    def assessed() -> tuple[Assessment, ImageFiles]:
        announce(folder)
        return assess_folder(folder, options.labels, **network, **columns, **criteria)

    return plan, assessed


def _of_table(path: Path, options: argparse.Namespace, criteria: dict[str, Any]) -> Work:
    from genkl.checks import check_probabilities
    from genkl.cli.files import open_inputs, read_labels
    from genkl.report import Criteria, assess

    _check_images(options)
    features = read_features(options.features) if options.features else None
    predictions, conforming, labels = open_inputs(options, path, "FOLDER_OR_TABLE")
    if features is not None and len(features) != predictions.rows:
        raise ValueError(
            f"--features {options.features} has {len(features)} rows and {predictions} has "
            f"{predictions.rows}; pass one row of features for each"
        )
    Criteria(**criteria).rule(predictions.num_classes)
    if features is None and options.max_distance is not None:
        raise ValueError(f"--max-distance is {options.max_distance} and no --features; pass them")
    given = labels and read_labels(
        labels, "--labels", options.label_column, predictions, options.id
    )
    names = [str(name) for name in predictions.table.column(options.id)] if options.id else None
    images = _images(options.images, names) if options.images else None

    def read(file: Predictions) -> np.ndarray:
        with file.named():
            probs = file.read()
            check_probabilities("pred_probs", probs, ndim=2)
        return probs

    def plan() -> dict[str, Any]:
        for file in filter(None, (predictions, conforming)):
            read(file)
        return {
            "predictions": predictions.rows,
            "classes": list(predictions.classes or map(str, range(predictions.num_classes))),
            "labels": labels and str(labels),
        }

    def assessed() -> tuple[Assessment, ImageFiles | None]:
        about = {"names": names, "features": features, "class_names": predictions.classes}
        known = read(conforming) if conforming else None
        with predictions.named():
            found = assess(predictions.read(), given, conforming_probs=known, **about, **criteria)
        return found, images

    return plan, assessed


def _check_images(options: argparse.Namespace) -> None:
    if options.images and not Path(options.images).expanduser().is_dir():
        raise DataNotFoundError(
            f"--images is {options.images}, which is no folder; correct the path"
        )
    if options.images and options.id is None:
        raise ValueError(
            "--images is given and no --id; name the column that holds paths relative to it"
        )


def _images(folder: str, names: list[str]) -> ImageFiles:
    from genkl.data.images import ImageFiles

    images = ImageFiles(Path(folder).expanduser(), names)
    if not any(images.path(row).is_file() for row in range(min(len(names), 100))):
        raise DataNotFoundError(
            f"--images {folder} holds none of the first files that --id names, such as {names[0]}; "
            "name the folder that these paths are relative to"
        )
    return images


def _show(found: Assessment, page: Path, table: Path, options: argparse.Namespace) -> None:
    import numpy as np

    from genkl.report import KINDS

    of_kind = np.bincount(found.kinds(), minlength=len(KINDS)).tolist()
    counts = dict(zip(KINDS, of_kind, strict=True))
    if options.json:
        told = {
            "images": len(found),
            "kinds": counts,
            "thresholds": vars(found.thresholds),
            "left_out": found.left_out,
            "page": str(page),
            "table": str(table),
        }
        print_json(told)
        return
    print(f"{options.source}: {len(found):,} images, {len(found.class_names)} classes")
    for name, text in found.facts.items():
        print(f"{name}: {text}")
    for name, count in counts.items():
        print(f"  {name:<26} {count:>8,}  {count / max(len(found), 1):6.1%}")
    if found.left_out:
        print(f"! {len(found.left_out)} could not be read, such as {found.left_out[0]}")
    print(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB), {table}")
