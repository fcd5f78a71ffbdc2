"""Predictions on photographs of clothes, with people's own "not sure" as the truth about NC.

    GENKL_DATA=... python -m benchmarks.clothing_predictions

writes results/predictions/clothing.safetensors, from which chapters draw without the images.
Ten classes are known. Images that people labelled "Not sure", "Other" or "Skip", and those of
garments outside the ten classes, do not conform. Senders are split between the clean, validation
and noisy part, so that no near-duplicate is in two of them. Five linear heads on frozen features
are trained on 300 clean labels and averaged; this is repeated for several seeds.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize
from tqdm import tqdm

import genkl
from genkl.models import linear_head, seeded_model
from genkl.records import provenance
from genkl.relabel import verified
from genkl.train import Examples

KNOWN = (
    "T-Shirt", "Longsleeve", "Pants", "Shoes", "Shirt",
    "Dress", "Outwear", "Shorts", "Hat", "Skirt",
)  # fmt: skip
DOUBTED = ("Not sure", "Other", "Skip")
CONFORMING, DOUBT, OUTSIDE = 0, 1, 2
HOW_TO_GET = (
    "clone https://github.com/alexeygrigorev/clothing-dataset (CC0) to <root>/clothing-dataset and "
    "pass --data-root <root> or set GENKL_DATA=<root>"
)


def read_index(folder: Path) -> tuple[list[Path], list[str], np.ndarray]:
    """Paths, labels and senders of the images that are there."""
    with open(folder / "images.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = [folder / "images" / f"{row['image']}.jpg" for row in rows]
    there = [i for i, path in enumerate(paths) if path.is_file()]
    print(f"{len(there)} images; {len(rows) - len(there)} rows without an image file are skipped")
    senders = np.array([int(rows[i]["sender_id"]) for i in there])
    return [paths[i] for i in there], [rows[i]["label"] for i in there], senders


def read_images(paths: list[Path], size: int) -> torch.Tensor:
    """All images, (N, 3, size, size), uint8."""
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    for i, path in enumerate(tqdm(paths, desc="decoding", unit="image")):
        images[i] = resize(decode_image(str(path), ImageReadMode.RGB), [size, size])
    return images


def split_by_sender(
    classes: np.ndarray, senders: np.ndarray, rng: np.random.Generator, clean_per_class: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row indices of the clean, validation and noisy part; no sender is in two of them.

    Senders of more than 60 images stay in the noisy part. Senders are given to the clean part
    until every class has clean_per_class images there, then to validation until it has 600.
    """
    names, counts = np.unique(senders, return_counts=True)
    small = rng.permutation(names[counts <= 60])
    part = np.full(len(senders), 2)
    for sender in small:
        mine = senders == sender
        in_clean = np.bincount(classes[(part == 0) & (classes >= 0)], minlength=len(KNOWN))
        if in_clean.min() < clean_per_class:
            part[mine] = 0
        elif ((part == 1) & (classes >= 0)).sum() < 600:
            part[mine] = 1
    clean = [rng.permutation(np.flatnonzero((part == 0) & (classes == c))) for c in range(10)]
    if min(map(len, clean)) < clean_per_class:
        raise ValueError("too few images of small senders; ask for fewer clean images per class")
    return (
        np.concatenate([rows[:clean_per_class] for rows in clean]),
        np.flatnonzero((part == 1) & (classes >= 0)),
        np.flatnonzero(part == 2),
    )


def average_of_heads(features, labels, clean, validation, asked, seed: int, heads: int):
    """Averaged predictions of linear heads, trained on clean, stopped on validation."""
    from genkl.data.base import make_split

    phase = genkl.SOLAR_CELLS.pretrain
    held_out = make_split(features[validation], labels[validation], validation)
    examples = Examples.of(features[clean], verified(labels[clean], len(KNOWN)))
    models = []
    for member in range(heads):
        head = seeded_model(linear_head, (features.shape[1],), len(KNOWN), 1000 * seed + member)
        genkl.fit(head, examples, phase, held_out, seed=1000 * seed + member)
        models.append(head)
    return [genkl.predict_probs(models, features[rows]) for rows in asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default=os.environ.get("GENKL_DATA"), help=HOW_TO_GET)
    parser.add_argument("--size", type=int, default=160, help="pixels (default 160)")
    parser.add_argument("--seeds", type=int, default=5, help="splits and heads (default 5)")
    parser.add_argument("--clean-per-class", type=int, default=30)
    parser.add_argument(
        "--out", type=Path, default=Path("results/predictions/clothing.safetensors")
    )
    options = parser.parse_args()
    folder = Path(options.data_root or ".") / "clothing-dataset"
    if not (folder / "images.csv").is_file():
        parser.error(f"{folder / 'images.csv'} is not there; {HOW_TO_GET}")
    paths, names, senders = read_index(folder)
    classes = np.array([KNOWN.index(name) if name in KNOWN else -1 for name in names])
    truth = np.where(classes >= 0, CONFORMING, OUTSIDE)
    truth[np.isin(names, DOUBTED)] = DOUBT
    features = genkl.extract_features(read_images(paths, options.size), size=options.size)
    tensors: dict[str, torch.Tensor] = {}
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        clean, validation, noisy = split_by_sender(classes, senders, rng, options.clean_per_class)
        probs, held_out = average_of_heads(
            features, classes, clean, validation, (noisy, validation), seed, heads=5
        )
        reached = genkl.accuracy(held_out, classes[validation])
        known = classes[noisy] >= 0
        print(
            f"seed {seed}: {len(clean)} clean, {len(validation)} validation, {len(noisy)} noisy; "
            f"accuracy {reached:.1%} on validation, "
            f"{genkl.accuracy(probs[known], classes[noisy][known]):.1%} on noisy images of a class"
        )
        tensors |= {
            f"{seed}.pred_probs": torch.from_numpy(probs.astype(np.float32)),
            f"{seed}.validation_probs": torch.from_numpy(held_out.astype(np.float32)),
            f"{seed}.kinds": torch.from_numpy(truth[noisy].astype(np.uint8)),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {key: str(value) for key, value in provenance().items()}
    save_file(tensors, options.out, metadata={"source": "clothing-dataset (CC0)", **facts})
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
