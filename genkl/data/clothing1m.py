"""Clothing1M: a million photographs from shopping sites, labelled by the words around them.

1,000,000 images have labels that are wrong for some 38 %, 72,409 have verified ones. The paper's
authors looked at 200 of the noisy images and found them non-conforming: their list,
``NC_instances.txt``, is read where there is one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from genkl.data.base import NoisyDataset, Truth, compare_labels, make_dataset
from genkl.data.lists import (
    ListFile,
    find_images,
    find_rows,
    read_keys,
    read_labels,
)
from genkl.data.registry import CLOTHING1M
from genkl.data.sources import find_data
from genkl.data.splitting import check_limit, draw_rows

CLASS_NAMES = (
    "T-Shirt",
    "Shirt",
    "Knitwear",
    "Chiffon",
    "Sweater",
    "Hoodie",
    "Windbreaker",
    "Jacket",
    "Downcoat",
    "Suit",
    "Shawl",
    "Dress",
    "Vest",
    "Underwear",
)
LABEL_LISTS = ("noisy_label_kv.txt", "clean_label_kv.txt")
KEY_LISTS = {
    "noisy": "noisy_train_key_list.txt",
    "clean": "clean_train_key_list.txt",
    "validation": "clean_val_key_list.txt",
    "test": "clean_test_key_list.txt",
}
NC_LIST = "NC_instances.txt"
PREFIX = "images/"


def load_clothing1m(
    seed: int = 0,
    *,
    data_root: str | os.PathLike[str] | None = None,
    nc_instances: str | os.PathLike[str] | None = None,
    clean_limit: int | None = None,
    noisy_limit: int | None = None,
) -> tuple[NoisyDataset, Truth]:
    """Load Clothing1M: 14 classes, the authors' own splits.

    Args:
        seed: decides which instances are drawn where there is a limit, and nothing else.
        data_root: where to look for it instead of ``$GENKL_DATA``.
        nc_instances: a list of keys of non-conforming images; None looks for ``NC_instances.txt``
            beside the lists and in the neighbouring folder ``clothing1m``, and does without.
        clean_limit: draw at most so many clean instances, of each class the same number as far as
            it goes; for trying things out.
        noisy_limit: draw at most so many noisy instances at random.

    Returns:
        The data set, its inputs image files, and the truth about its noisy split. It is NC for the
        instances on the list, CORRECT or MISLABELLED where an instance also has a verified label,
        else UNKNOWN. An image of a clean split is never in the noisy one. Ids count the lines of
        ``noisy_label_kv.txt``, then the further keys of ``clean_label_kv.txt``.

    Raises:
        DataNotFoundError: the data set, or its images, are not here; the message says what to do.
        ValueError: a bad line in a list; the message says which.
    """
    check_limit("clean_limit", clean_limit)
    check_limit("noisy_limit", noisy_limit)
    folder = find_data(CLOTHING1M, data_root)
    lists = folder if (folder / LABEL_LISTS[0]).exists() else folder / "annotations"
    names, given, verified = read_both_labels(lists)
    keys = {split: read_keys(lists / file, prefix=PREFIX) for split, file in KEY_LISTS.items()}
    rows = find_split_rows(keys, names, given, verified)
    rows["clean"] = draw_rows(rows["clean"], clean_limit, seed, verified[rows["clean"]])
    rows["noisy"] = draw_rows(rows["noisy"], noisy_limit, seed)
    source, is_nc = "verified labels where there are any", np.zeros(len(names), bool)
    listed_nc = read_nc_instances(nc_instances, folder, lists)
    if listed_nc is not None:
        is_nc = match_nc_instances(listed_nc, names)
        source += f", and the non-conforming images of {listed_nc.path.name}"
    kinds = compare_labels(given, verified, is_nc)
    verified[rows["noisy"][is_nc[rows["noisy"]]]] = -1
    files = find_images([folder / "images", folder], names, rows.values())
    truth = Truth(kinds, verified, source)
    return make_dataset(CLOTHING1M.name, CLASS_NAMES, files.take, rows, given, truth)


def read_both_labels(lists: Path) -> tuple[pa.StringArray, np.ndarray, np.ndarray]:
    """Every key once, with its given and its verified label.

    Args:
        lists: the folder of the label lists.

    Returns:
        Keys, given labels and verified ones, each of length M; -1 where there is none. First come
        the keys with a given label in the order of their list, then those with a verified one only.
    """
    noisy, clean = (
        read_labels(lists / name, len(CLASS_NAMES), prefix=PREFIX) for name in LABEL_LISTS
    )
    in_clean = find_rows(noisy.keys, clean.keys)
    both = in_clean >= 0
    only_clean = np.ones(len(clean), bool)
    only_clean[in_clean[both]] = False
    further = np.flatnonzero(only_clean)
    names = pa.concat_arrays([noisy.keys, clean.keys.take(pa.array(further))])
    given = np.full(len(names), -1)
    given[: len(noisy)] = noisy.labels
    verified = np.full(len(names), -1)
    verified[np.flatnonzero(both)] = clean.labels[in_clean[both]]
    verified[len(noisy) :] = clean.labels[further]
    return names, given, verified


def find_split_rows(
    keys: dict[str, ListFile], names: pa.StringArray, given: np.ndarray, verified: np.ndarray
) -> dict[str, np.ndarray]:
    """Which instances are in which split, in the order of its key list.

    Args:
        keys: the key list of each split, those of `KEY_LISTS`.
        names: M keys.
        given: shape (M,), -1 where there is none.
        verified: shape (M,), -1 where there is none.

    Returns:
        Positions in names, by split; no position is in two of them.

    Raises:
        ValueError: a key without the label that its split needs, or in two of the clean splits.
    """
    # One look-up for all four lists: a million names are hashed once.
    every = find_rows(pa.concat_arrays([listed.keys for listed in keys.values()]), names)
    ends = np.cumsum([len(listed) for listed in keys.values()])
    rows: dict[str, np.ndarray] = {}
    order = list(KEY_LISTS)
    owner = np.full(len(names), -1, np.int8)
    for (split, listed), found in zip(keys.items(), np.split(every, ends[:-1]), strict=True):
        labels, file = (given, LABEL_LISTS[0]) if split == "noisy" else (verified, LABEL_LISTS[1])
        unlabelled = (found < 0) | (labels[found] < 0)
        listed.refuse(unlabelled, f"{{}} has no label in {file}", "are both of the same release?")
        if split != "noisy":
            for earlier in rows:
                problem, remedy = f"{{}} is also in {KEY_LISTS[earlier]}", "keep it in one of them"
                listed.refuse(owner[found] == order.index(earlier), problem, remedy)
            owner[found] = order.index(split)
        _, first = np.unique(found, return_index=True)  # a key listed twice counts once
        rows[split] = found[np.sort(first)]
    rows["noisy"] = rows["noisy"][owner[rows["noisy"]] < 0]
    return rows


def read_nc_instances(
    path: str | os.PathLike[str] | None, folder: Path, lists: Path
) -> ListFile | None:
    """The list of non-conforming images; None if there is none.

    Raises:
        FileNotFoundError: a path was given, and there is nothing.
    """
    if path is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"nc_instances is {os.fspath(path)!r}, and there is no such file; pass the path "
                f"of {NC_LIST}, or None"
            )
        return read_keys(path, prefix=PREFIX)
    for place in (lists, folder, folder.parent / CLOTHING1M.folders[0]):
        if (place / NC_LIST).is_file():
            return read_keys(place / NC_LIST, prefix=PREFIX)
    return None


def match_nc_instances(listed: ListFile, names: pa.StringArray) -> np.ndarray:
    """Which of the names are on the list.

    Args:
        listed: keys of non-conforming images.
        names: M keys.

    Returns:
        Boolean mask, shape (M,).

    Raises:
        ValueError: a key that is not among the names.
    """
    at = find_rows(names, listed.keys)
    matched = np.zeros(len(listed), bool)
    matched[at[at >= 0]] = True
    # Only a key's first line was matched; a second one is as good.
    unknown = ~matched[find_rows(listed.keys, listed.keys)]
    listed.refuse(
        unknown,
        f"{{}} is in no label list ({unknown.sum()} of {len(listed)} keys are in none)",
        "pass nc_instances= with the list that belongs to them",
    )
    return at >= 0
