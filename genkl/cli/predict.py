"""``genkl predict``: predictions of a folder of images, each from the labels of the others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from genkl.cli.options import Names, add_command, flag, given_of, print_facts

if TYPE_CHECKING:
    import numpy as np

    from genkl.data.folder import LabelledFiles

DESCRIPTION = """\
Predict every image of a folder from the labels of the others, and write a table that 'genkl
identify', 'genkl report', cleanlab and others read: image, label (-1 for none), and a probability
for each class.

A frozen network turns images into features, which are kept. Logistic regressions learn from the
labels of other images (five folds, three times, averaged): no fold parts near copies, nor images of
one group. A label that somebody verified teaches instead of the given one."""

EPILOG = """\
examples:
  genkl predict photographs --out probs.parquet
  genkl predict photographs --labels labels.csv --group-column sender --out probs.csv
  genkl identify probs.parquet --id image --label-column label --conforming validation.parquet
  genkl report probs.parquet --id image --label-column label --images photographs"""


class LabelOptions:
    """Labels and features.

    Attributes:
        labels (FILE): given labels, -1 for none: for a folder a .csv or .tsv, in it or elsewhere
            (default: the name of the sub-folder that an image is in); for predictions .npy, .csv,
            .tsv or .parquet (default: none, and no label is judged)
        label_column (COLUMN): column that holds them (default: label in the table of a folder; the
            only one besides that of --id in another)
        classes (NAME,NAME,...): names of the classes; in a table of predictions those columns
            (default: the labels that occur; every column but those of --id and --label-column)
        features (FILE): .npy (N, d), your own, a row for each line of the table, or for each image
            in the order of their paths (default: for a folder those of --backbone; none for
            predictions, where two classes that hold most of the probability tell little)
    """

    labels: str | None = None
    label_column: str | None = None
    classes: Names | None = None
    features: str | None = None


class FolderOptions:
    """A folder of images.

    Attributes:
        image_column (COLUMN): column of --labels with paths relative to the folder (default: image)
        image_suffix (TEXT): what these paths lack, such as .jpg (default: nothing)
        group_column (COLUMN): column of --labels that says what an image comes from, such as the
            sender or the product: labels of one group don't predict one another (default: near
            copies alone are groups)
        verified_column (COLUMN): column of --labels with labels that somebody checked, empty where
            nobody did. They teach instead of the given ones, and tell how often conforming images
            are flagged (default: verified, where there is one)
        non_conforming_name (NAME): what that column says where no class fits, such as none in the
            table that the page saves (default: nothing)
        no_label (NAME): what --label-column says where there is no label, such as "Not sure"; can
            be repeated (default: nothing)
        missing: files in --labels that are not there (default: raise)
        backbone (NAME): network of torchvision or timm that the features come from (default:
            EfficientNet-Lite0, whose weights a package holds)
        weights (FILE|default|random): of --backbone (default: those that the framework publishes)
        size (PIXELS): of its input; fewer are faster and see less (default: the network's own)
        device (NAME): auto, cpu, cuda, mps (default: auto)
    """

    image_column: str | None = None
    image_suffix: str | None = None
    group_column: str | None = None
    verified_column: str | None = None
    non_conforming_name: str | None = None
    no_label: list[str]
    missing: Literal["raise", "skip"] | None = None
    backbone: str | None = None
    weights: str | None = None
    size: int | None = None
    device: str | None = None


class OutputOptions:
    """Output.

    Attributes:
        out (FILE): the table: .parquet or .csv (default: %(default)s)
        seed (N): of the folds (default: %(default)s)
        overwrite: replace FILE (default: refuse to)
        dry_run: check everything that can be checked at once, say what would be done, do nothing
            else (default: do it)
        json: print for programs (default: for people)
    """

    out: Path = Path("predictions.parquet")
    seed: int = 0
    overwrite: bool = False
    dry_run: bool = False
    json: bool = False


NETWORK = ("backbone", "weights", "size", "device")
"""Of `FolderOptions`; the others say what the columns of the table of labels are."""


def add_parser(areas: Any) -> None:
    """Add the command, see `add_command`."""
    about = "predict every image of a folder from the labels of the others"
    groups, source = (LabelOptions, FolderOptions, OutputOptions), ("folder", "FOLDER", "of images")
    texts = {"help": about, "description": DESCRIPTION, "epilog": EPILOG}
    parser = add_command(areas, "predict", groups, source, **texts)
    parser.set_defaults(command=_predict, spoken={"class_names": "--classes", "folder": "FOLDER"})


def _predict(options: argparse.Namespace) -> None:
    from genkl.cli.files import checked_destination, files_read
    from genkl.report.folder import check_column_names, check_labels_of, predict_folder
    from genkl.storage import replacing

    read = files_read(options, Path(options.folder).expanduser())
    out = checked_destination("--out", options.out, read, options.overwrite)
    if out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out is {out}; the table's name must end in .parquet or .csv")
    network, columns = of_folder(options)
    files, present, _ = check_labels_of(options.folder, options.labels, **columns)
    check_column_names(files.class_names)
    told = plan_of(files, present, network) | {"table": str(out)}
    if options.dry_run:
        print_facts(told, options.json)
        return
    announce(options.folder)
    made = predict_folder(options.folder, options.labels, seed=options.seed, **network, **columns)
    table = made.to_frame()
    with replacing(out) as path:
        (table.to_csv if out.suffix == ".csv" else table.to_parquet)(path, index=False)
    told |= {"images": len(table), "left_out": list(made.left_out), "predictions": made.told}
    print_facts(told, options.json)


def of_folder(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `predict_folder` is told: about features, and about the table of labels.

    Raises:
        ValueError, OSError: options that don't go together, or a file of features that can't be
            used.
    """
    from genkl.features import EFFICIENTNET_LITE0, get_backbone

    columns = [name for name in get_type_hints(FolderOptions) if name not in NETWORK]
    if options.labels is None:
        for name in ("label_column", "image_column", "group_column", "verified_column"):
            if getattr(options, name):
                raise ValueError(
                    f"{flag(name)} is given and no --labels; pass the table, or leave it out"
                )
    network = {"progress": watched(), **given_of(options, ["size", "device"])}
    if options.weights and not options.backbone:
        raise ValueError("--weights is given and no --backbone; name the network that it is of")
    if options.features:
        for name in given_of(options, NETWORK):
            raise ValueError(
                f"{flag(name)} is given and --features, too, which need no network; leave one out"
            )
        network["features"] = read_features(options.features)
    elif options.backbone:
        weights = {None: "default", "random": None}.get(options.weights, options.weights)
        network["backbone"] = get_backbone(options.backbone, weights, seed=options.seed)
    else:
        network["backbone"] = EFFICIENTNET_LITE0
    told = {"class_names": options.classes, **given_of(options, ["label_column", *columns])}
    return network, told


def plan_of(files: LabelledFiles, present: np.ndarray, network: dict[str, Any]) -> dict[str, Any]:
    """What is there, and what turns it into features, after a check that it can.

    Raises:
        ValueError: a size that the network can't have, or a device that isn't there.
    """
    from genkl.features.extract import check_size
    from genkl.networks import pick_device

    plan = {"images": len(present), "classes": list(files.class_names)}
    if "backbone" not in network:
        return plan | {"features": list(network["features"].shape)}
    backbone, size = network["backbone"], network.get("size", network["backbone"].size)
    check_size(backbone, size)
    pick_device(device := network.get("device", "auto"))
    return plan | {"backbone": backbone.name, "size": size, "device": device}


def read_features(path: str) -> np.ndarray:
    """Features of a file, shape (N, d).

    Raises:
        ValueError, OSError: a file that holds none.
    """
    import numpy as np

    from genkl.data.tables import checked_source, read_array

    if not path.endswith(".npy"):
        raise ValueError(f"--features is {path}; its name must end in .npy")
    features = read_array(checked_source(path, "--features"), "--features")
    if features.ndim != 2:
        raise ValueError(f"--features {path} has shape {features.shape}; it must be (N, d)")
    if features.dtype.kind not in "fiu" or not np.isfinite(features).all():
        raise ValueError(f"--features {path} holds something else than finite numbers")
    return features


def watched() -> bool:
    """Whether somebody sees a bar."""
    return sys.stderr.isatty()


def announce(folder: object) -> None:
    """Say that work begins, where nobody sees a bar."""
    if not watched():
        print(f"{folder}: features, then predictions; thousands take minutes", file=sys.stderr)
