"""Miniature trees in the layouts of the paper's three data sets, with real JPEGs of one grey each.

The grey tells which image it is (`grey_of`), so that a test sees whether an instance shows what its
list says.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

FOODS = ("apple_pie", "baby_back_ribs", "hot_and_sour_soup", "macarons", "waffles")
WEBVISION_CLASSES = 60


def grey_of(key: str) -> int:
    """The grey of an image, 0 to 255, by its key."""
    return zlib.crc32(key.encode()) % 256


def write_jpeg(path: Path, key: str) -> None:
    """A real JPEG, 8 x 6 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), grey_of(key)).save(path, quality=95)


def write_lines(path: Path, lines: Iterable[str], line_end: str = "\n", start: str = "") -> None:
    """A list file; every line ends with a line end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((start + "".join(line + line_end for line in lines)).encode())


def clothing_key(number: int) -> str:
    """A key as in Clothing1M, without the prefix: "0/07/1000007,2007.jpg"."""
    return f"{number % 10}/{number % 100:02d}/{1_000_000 + number},{2000 + number}.jpg"


def write_clothing1m(
    folder: Path,
    *,
    listed_prefix: str = "images/",
    image_folder: str = "images",
    list_folder: str = ".",
    line_end: str = "\n",
    start: str = "",
    more_noisy: Sequence[str] = (),
) -> Path:
    """Clothing1M: 3 noisy and 2 clean images of each class, 1 for validation, 1 for testing.

    As in the original, some clean images have a given label, too. Two noisy ones have a verified
    label and are in no clean list: one is right, one is wrong. One clean training image is also in
    the noisy key list, from which it must be left out.

    Args:
        folder: where it is written.
        listed_prefix: of the keys in the lists.
        image_folder: where the images are, relative to the folder.
        list_folder: where the lists are, relative to the folder.
        line_end: of the lists.
        start: what the lists begin with, such as a byte-order mark.
        more_noisy: further keys, without a prefix, for the noisy split.

    Returns:
        The folder.
    """
    keys = [clothing_key(number) for number in range(14 * 7)]
    noisy = {key: at % 14 for at, key in enumerate([*keys[: 14 * 3], *more_noisy])}
    clean, validation, test = (
        {key: (at + 5) % 14 for at, key in enumerate(keys[14 * first : 14 * last])}
        for first, last in ((3, 5), (5, 6), (6, 7))
    )
    verified = {**clean, **validation, **test, keys[3]: noisy[keys[3]], keys[4]: noisy[keys[4]] + 1}
    given = {**noisy, keys[14 * 3]: 9, keys[14 * 5]: 9, keys[14 * 6]: 9}
    lists = {
        "noisy_label_kv.txt": [f"{key} {label}" for key, label in reversed(given.items())],
        "clean_label_kv.txt": [f"{key} {label}" for key, label in verified.items()],
        "noisy_train_key_list.txt": [*noisy, keys[14 * 3]],
        "clean_train_key_list.txt": clean,
        "clean_val_key_list.txt": validation,
        "clean_test_key_list.txt": test,
    }
    for name, lines in lists.items():
        path = folder / list_folder / name
        write_lines(path, (listed_prefix + line for line in lines), line_end, start)
    for key in [*keys, *more_noisy]:
        write_jpeg(folder / image_folder / key, key)
    return folder


def write_food101n(folder: Path, *, line_end: str = "\n", start: str = "") -> Path:
    """Food-101N: of each of 5 classes 4 unverified images, 2 verified as right and 1 as wrong.

    So for training; for validation, 1 and 1. As in the original, one verified image is not listed.
    """
    images: list[str] = []
    verdicts: dict[str, dict[str, int]] = {"train": {}, "val": {}}
    for food in FOODS:
        keys = [f"{food}/{zlib.crc32(f'{food}{i}'.encode()):08x},{i}.jpg" for i in range(9)]
        images += keys
        verdicts["train"].update(zip(keys[4:7], (1, 0, 1), strict=True))
        verdicts["val"].update(zip(keys[7:], (0, 1), strict=True))
    verdicts["train"]["hot_and_sour_soup/a49e6fb26e356c6c41a37b5c18176355.jpg"] = 1
    write_lines(folder / "meta/classes.txt", ("class_name", *FOODS), line_end, start)
    write_lines(folder / "meta/imagelist.tsv", ("class_name/key", *images), line_end, start)
    for split, labels in verdicts.items():
        lines = [f"{key}\t{label}" for key, label in labels.items()]
        header = "class_name/key\tverification_label"
        write_lines(folder / f"meta/verified_{split}.tsv", (header, *lines), line_end, start)
    for key in images:
        write_jpeg(folder / "images" / key, key)
    return folder


def write_food101(folder: Path) -> Path:
    """Food-101: 2 test images and 1 training image of each of the 5 classes; no suffix listed."""
    names = {food: [f"{food}/{1000 + i}" for i in range(3)] for food in FOODS}
    write_lines(folder / "meta/classes.txt", FOODS)
    write_lines(folder / "meta/train.txt", (some[0] for some in names.values()))
    write_lines(folder / "meta/test.txt", (name for some in names.values() for name in some[1:]))
    for some in names.values():
        for name in some:
            write_jpeg(folder / "images" / f"{name}.jpg", f"{name}.jpg")
    return folder


def synset(label: int) -> str:
    """The WordNet number of a class in the miniature WebVision."""
    return f"n{1_440_764 + 13 * label:08d}"


def write_webvision(
    folder: Path,
    *,
    image_folder: str = ".",
    test_folder: str = "val_images_256",
    line_end: str = "\n",
    start: str = "",
    synsets: bool = True,
) -> Path:
    """WebVision 1.0: 3 training images of each of 60 classes, 2 for validation; not in order."""
    training = {
        f"google/q{label * 2 + i % 2:04d}/img,{label}_{i}.jpg": label
        for i in range(3)
        for label in reversed(range(WEBVISION_CLASSES))
    }
    tests = {f"val{i + 1:06d}.jpg": i * 7 % WEBVISION_CLASSES for i in range(2 * WEBVISION_CLASSES)}
    for name, labels in (("train_filelist_google", training), ("val_filelist", tests)):
        lines = [f"{key} {label}" for key, label in labels.items()]
        write_lines(folder / f"info/{name}.txt", lines, line_end, start)
    if synsets:
        words = [f"{synset(i)} thing {i}, kind of thing" for i in range(WEBVISION_CLASSES)]
        write_lines(folder / "info/synsets.txt", words, line_end, start)
    for key in training:
        write_jpeg(folder / image_folder / key, key)
    for key in tests:
        write_jpeg(folder / test_folder / key, key)
    return folder


def write_ilsvrc12(folder: Path, *, with_list: bool = False) -> Path:
    """ILSVRC 2012 validation: 2 images of each of 60 classes, in folders or with ``val.txt``."""
    labels: Mapping[str, int] = {
        f"ILSVRC2012_val_{i + 1:08d}.JPEG": i * 11 % WEBVISION_CLASSES
        for i in range(2 * WEBVISION_CLASSES)
    }
    for name, label in labels.items():
        place = name if with_list else f"{synset(label)}/{name}"
        write_jpeg(folder / "val" / place, name)
    if with_list:
        write_lines(folder / "val.txt", [f"{name} {label}" for name, label in labels.items()])
    return folder
