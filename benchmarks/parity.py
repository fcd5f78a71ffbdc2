"""The benchmark of parity: votes that agree with the published formulation, k from 2 to 1000.

python -m benchmarks.parity       # a few minutes; writes results/benchmarks/parity.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import genkl
from benchmarks import published
from benchmarks.identification import SIZES, VECTORS, draw_predictions
from genkl.records import save_record

PRECISIONS = (np.float32, np.float64)


def compare(probs: np.ndarray, alpha: float, beta: float, vectors: np.ndarray) -> dict[str, int]:
    """Votes, flagged ones, and those that differ."""
    expected = published.identify_nc(probs, alpha, beta, vectors)
    differ = genkl.identify_nc(probs, alpha, beta, vectors) != expected
    return {"votes": len(probs), "flagged": int(expected.sum()), "different": int(differ.sum())}


def compare_presets(rows: int, seeds: int) -> pd.DataFrame:
    """Every preset with several seeds of its vectors, at most so many rows at a time."""
    found = []
    for name, size in SIZES.items():
        for seed in range(seeds):
            vectors = genkl.uniform_like_vectors(size.classes, VECTORS, size.sigma, seed)
            probs = draw_predictions(min(rows, size.rows), size.classes, seed)
            for dtype in PRECISIONS:
                made = compare(probs.astype(dtype), size.alpha, size.beta, vectors)
                row = {"case": name, "precision": np.dtype(dtype).name, "seed": seed}
                found.append(row | made)
    return pd.DataFrame(found)


def compare_classes(rows: int) -> pd.DataFrame:
    """Every number of classes from 2 to 1000; settings differ from one to the next."""
    found = []
    for k in tqdm(range(2, 1001), desc="k", unit="k"):
        rng = np.random.default_rng(k)
        beta, alpha = rng.uniform(0, 0.95) / k, rng.uniform(0.7, 1.1)
        vectors = genkl.uniform_like_vectors(k, VECTORS, 0.05, k)
        probs = draw_predictions(rows, k, k)
        probs[0], probs[1] = 1 / k, np.eye(k)[0]
        # Half of the alphas are the critical alpha of a row: a tie but for rounding.
        if k % 2:
            scores = genkl.nc_score(probs, beta, vectors)
            alpha = float(np.median(scores[scores > 0]))
        for dtype in PRECISIONS:
            made = compare(probs.astype(dtype), alpha, beta, vectors)
            found.append({"k": k, "precision": np.dtype(dtype).name, **made})
    return pd.DataFrame(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=250_000, help="of a preset (default 250,000)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows-per-k", type=int, default=400)
    parser.add_argument("--record", type=Path, default=Path("results/benchmarks/parity.json"))
    options = parser.parse_args()
    presets = compare_presets(options.rows, options.seeds)
    classes = compare_classes(options.rows_per_k)
    by_k = classes.groupby("precision")[["votes", "flagged", "different"]].sum()
    print(presets.groupby(["case", "precision"])[["votes", "flagged", "different"]].sum())
    print(f"k from {classes['k'].min()} to {classes['k'].max()}:\n{by_k}")
    save_record(
        options.record,
        title="Votes against the published formulation",
        tables={"presets": presets, "classes": by_k.reset_index()},
        settings={"rows": options.rows, "rows_per_k": options.rows_per_k},
        overwrite=True,
    )


if __name__ == "__main__":
    main()
