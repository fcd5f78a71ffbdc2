"""The benchmark of open data sets: loading, feature extraction, linear probes.

    GENKL_DATA=/path/to/data python -m benchmarks.datasets

Data sets that are not on this machine are left out, and the record says so. Each loader runs in a
process of its own, for its peak memory. Features come from `genkl.EFFICIENTNET_LITE0`; the time of
extraction is taken with an empty cache on a few hundred images, all else uses the usual cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import genkl
from genkl.data import NoisyDataset, Truth
from genkl.data.registry import DATASETS
from genkl.data.sources import is_present

CASES: dict[str, dict] = {
    "digits": {},
    "solar-cells": {},
    "clothing-dataset": {"label_noise": 0.3},
    "cifar10n": {"labels": "worst"},
    "cifar10h": {},
}
"""Data set -> options of its loader, in everything but loading (which takes the defaults)."""
PROBED = {"clothing-dataset": (96, 160, 224), "cifar10n": (96,)}

LOAD = """
import json, resource, sys, time
import genkl, genkl.data.registry
from sklearn.datasets import load_digits
import torchvision.transforms.v2
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.perf_counter()
dataset, truth = genkl.load_dataset(sys.argv[1], seed=0)
seconds = time.perf_counter() - start
sizes = {name: len(split) for name, split in dataset.splits().items()}
print(json.dumps({**sizes, "classes": dataset.num_classes, "non-conforming": int(truth.is_nc.sum()),
                  "seconds": seconds, "extra MB": peak() - before}))
"""


def measure_loading(name: str) -> dict:
    """Load a whole data set in a process of its own: sizes, seconds and peak memory."""
    run = [sys.executable, "-c", LOAD, name]
    return {"data set": name, **json.loads(subprocess.check_output(run, text=True))}


def measure_extraction(dataset: NoisyDataset, pixels: int, count: int = 384) -> float:
    """Images per second through the frozen network, decoding and hashing included."""
    some = dataset.noisy.take(np.arange(min(count, len(dataset.noisy)))).inputs
    with tempfile.TemporaryDirectory() as empty:
        genkl.extract_features(
            dataset.test.take(np.arange(8)).inputs, size=pixels, cache_dir=empty, progress=False
        )
        start = time.perf_counter()
        genkl.extract_features(some, size=pixels, cache_dir=empty, progress=False)
        return len(some) / (time.perf_counter() - start)


def probe(features: NoisyDataset, truth: Truth) -> float:
    """Test accuracy of logistic regression on features and *true* labels: what they can do."""
    conforming = truth.labels >= 0
    inputs = np.concatenate([features.noisy.inputs[conforming], features.clean.inputs])
    labels = np.concatenate([truth.labels[conforming], features.clean.labels])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=1e-3))
    model.fit(inputs, labels)
    return model.score(features.test.inputs.numpy(), features.test.labels.numpy())


def measure_probes(name: str, pixels: int, seeds: int) -> list[dict]:
    """A row for each seed: what features of this size can do, and how fast they come."""
    rows = []
    for seed in range(seeds):
        dataset, truth = genkl.load_dataset(name, seed=seed, **CASES[name])
        speed = measure_extraction(dataset, pixels) if seed == 0 else float("nan")
        features = genkl.featurize(dataset, size=pixels, progress=False)
        row = {"data set": name, "pixels": pixels, "seed": seed}
        rows.append({**row, "accuracy": probe(features, truth), "images per second": speed})
        print(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="of splits (default 3)")
    parser.add_argument("--out", type=Path, default=Path("results/data/open_datasets.json"))
    options = parser.parse_args()
    sources = {n: (DATASETS[n].source, *DATASETS[n].also_needs) for n in CASES}
    here = {name for name in CASES if all(map(is_present, sources[name]))}
    absent = [name for name in CASES if name not in here]
    if absent:
        print(f"left out, not on this machine: {', '.join(absent)}")
    loading = [measure_loading(name) for name in CASES if name in here]
    print(pd.DataFrame(loading).round(1).to_string(index=False))

    probes = [
        row
        for name, sizes in PROBED.items()
        if name in here
        for pixels in sizes
        for row in measure_probes(name, pixels, options.seeds)
    ]
    path = genkl.save_record(
        options.out,
        title="The open data sets: loading, features, linear probes",
        tables={"loading": pd.DataFrame(loading), "probes": pd.DataFrame(probes)},
        settings={"cases": CASES, "absent": absent},
        overwrite=True,
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
