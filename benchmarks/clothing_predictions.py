"""Predictions on photographs of clothes, with people's own "not sure" as the truth about NC.

    GENKL_DATA=... python -m benchmarks.clothing_predictions

writes results/predictions/clothing.safetensors, from which chapters draw without the images.
Ten classes are known. Images that people labelled "Not sure", "Other" or "Skip", and those of
garments outside the ten classes, do not conform. No sender is in two of the clean, validation and
noisy split. Five linear heads on frozen features are trained on 300 clean labels and averaged;
this is repeated for several seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import genkl
from genkl.data.clothing_dataset import load_clothing_dataset
from genkl.records import provenance

CONFORMING, DOUBT, OUTSIDE = 0, 1, 2


def load(seed: int, data_root: str | None, clean_per_class: int):
    """The data set without a test split, and what each noisy image is."""
    options = {
        "data_root": data_root,
        "clean_per_class": clean_per_class,
        "validation_per_class": 35,
        "test_per_class": 0,
    }
    dataset, truth = load_clothing_dataset(seed, **options)
    _, doubted = load_clothing_dataset(seed, non_conforming="doubt", **options)
    kinds = np.where(truth.is_nc, OUTSIDE, CONFORMING)
    kinds[np.isin(truth.ids, doubted.ids[doubted.is_nc])] = DOUBT
    return dataset, truth, kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", help="folder of data sets (default: $GENKL_DATA)")
    parser.add_argument("--size", type=int, default=160, help="pixels (default 160)")
    parser.add_argument("--seeds", type=int, default=5, help="splits and heads (default 5)")
    parser.add_argument("--clean-per-class", type=int, default=30)
    parser.add_argument(
        "--out", type=Path, default=Path("results/predictions/clothing.safetensors")
    )
    options = parser.parse_args()
    tensors: dict[str, torch.Tensor] = {}
    for seed in range(options.seeds):
        dataset, truth, kinds = load(seed, options.data_root, options.clean_per_class)
        images = [split.inputs for split in (dataset.clean, dataset.noisy, dataset.validation)]
        clean, noisy, validation = (genkl.extract_features(i, size=options.size) for i in images)
        heads = train_heads(clean, dataset.clean.labels, validation, dataset.validation, seed)
        probs, held_out = (genkl.predict_probs(heads, part) for part in (noisy, validation))
        known = truth.labels >= 0
        reached = genkl.accuracy(held_out, dataset.validation.labels)
        print(
            f"seed {seed}: {len(clean)} clean, {len(validation)} validation, {len(noisy)} noisy; "
            f"accuracy {reached:.1%} on validation, "
            f"{genkl.accuracy(probs[known], truth.labels[known]):.1%} on noisy images of a class"
        )
        tensors |= {
            f"{seed}.pred_probs": torch.from_numpy(probs.astype(np.float32)),
            f"{seed}.validation_probs": torch.from_numpy(held_out.astype(np.float32)),
            f"{seed}.kinds": torch.from_numpy(kinds.astype(np.uint8)),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {key: str(value) for key, value in provenance().items()}
    save_file(tensors, options.out, metadata={"source": "clothing-dataset (CC0)", **facts})
    options.out.chmod(0o644)
    print(f"written: {options.out}")


def train_heads(clean, labels, validation, held_out: genkl.Split, seed: int, heads: int = 5):
    """Linear heads on the clean features, each at its best step on validation."""
    from genkl.data import make_split
    from genkl.networks import linear_head, seeded_model
    from genkl.relabel import verified

    held_out = make_split(validation, held_out.labels.numpy(), held_out.ids.numpy())
    examples = genkl.Examples.of(clean, verified(labels, 10))
    models = []
    for member in range(heads):
        head = seeded_model(linear_head, (clean.shape[1],), 10, 1000 * seed + member)
        genkl.fit(head, examples, genkl.PHOTOGRAPHS.pretrain, held_out, seed=1000 * seed + member)
        models.append(head)
    return models


if __name__ == "__main__":
    main()
