"""The benchmark of resilience: a run killed ten times, and divided over two processes.

    python -m benchmarks.resilience    # two minutes; writes results/benchmarks/resilience.json

A run on the digits (two rounds of two networks with mixup) is started as a process of its own,
ended by SIGKILL at a random moment, started again with ``resume``, and so on. What it comes to in
the end is compared with a run that nobody disturbed: every weight and every recorded number. Then
the same phase of training is run by one process and by two (torchrun, gloo), on the same batches.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from genkl import (
    DIGITS,
    Engine,
    Examples,
    Phase,
    fit,
    load_dataset,
    relabel_instances,
    run_genkl,
    small_cnn,
)
from genkl.learn import read_log
from genkl.networks import seeded_model
from genkl.records import save_record
from genkl.storage import load_tensors

RECORD = Path("results/benchmarks/resilience.json")
EVERY = 20
"""Steps between two checkpoints."""


def run_in(folder: Path) -> None:
    """Start the run, or go on with it."""
    dataset, _ = load_dataset("digits", seed=0)
    config = replace(DIGITS, first_ensemble=2, ensemble=2, max_rounds=2)
    options = {"stop_early": False, "engine": "cpu", "progress": False}
    options |= {"resume": (folder / "run.json").exists(), "checkpoint_every": EVERY}
    run_genkl(dataset, config, make_model=small_cnn, run_dir=folder, **options)


def differences(folder: Path, reference: Path) -> tuple[int, int]:
    """Recorded numbers and weights that differ between two folders, bit for bit."""

    def flat(value: Any) -> list[Any]:
        if isinstance(value, dict):
            value = [inner for key, inner in value.items() if key != "seconds"]
        if isinstance(value, list):
            return [number for inner in value for number in flat(inner)]
        return [value]

    both = (folder / "record.json", reference / "record.json")
    records = [json.loads(path.read_text())["rounds"] for path in both]
    numbers = sum(a != b for a, b in zip(*map(flat, records), strict=True))
    weights = 0
    for file in (reference / "models").iterdir():
        ours = load_tensors(folder / "models" / file.name)[0]
        for name, tensor in load_tensors(file)[0].items():
            weights += int((ours[name] != tensor).sum())
    return numbers, weights


def kill_and_resume(kills: int, folder: Path, seed: int = 0) -> list[dict[str, Any]]:
    """One row for each kill: how long the process lived and how far the run had come.

    Returns:
        Rows with the run's number, seconds of the process, evaluations logged; in the last of each
        run, how many numbers and weights differ from the undisturbed run.
    """
    command = [sys.executable, "-m", "benchmarks.resilience", "--run-in"]
    start = time.perf_counter()
    subprocess.run([*command, str(folder / "whole")], check=True)
    whole = time.perf_counter() - start
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    attempt = 0
    with tqdm(total=kills, desc="killing", unit="kill") as bar:
        while len(rows) < kills:
            attempt += 1
            run = folder / f"run-{attempt}"
            while len(rows) < kills and not (run / "record.json").exists():
                process = subprocess.Popen([*command, str(run)])
                try:
                    process.wait(rng.uniform(0.4, 1.0) * whole)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    log = read_log(run / "log.jsonl")
                    row = {"run": attempt, "kill": len(rows) + 1, "evaluations_logged": len(log)}
                    rows.append(row | {"last_unit": log[-1]["unit"] if log else "before the first"})
                    bar.update()
            subprocess.run([*command, str(run)], check=True)
            numbers, weights = differences(run, folder / "whole")
            for row in rows:
                if row["run"] == attempt:
                    row |= {"numbers_that_differ": numbers, "weights_that_differ": weights}
    return rows


def loss_curve() -> list[dict[str, float]]:
    """One phase of three-term training, by however many processes there are."""
    torch.set_num_threads(1)
    engine = Engine(accelerator="cpu")
    engine.launch()
    dataset, _ = load_dataset("digits", seed=0)
    k = dataset.num_classes
    probs = np.random.default_rng(0).dirichlet(np.ones(k), len(dataset.noisy))
    is_nc = np.arange(len(dataset.noisy)) % 5 == 0
    relabelled = relabel_instances(probs, dataset.noisy.labels.numpy(), is_nc, np.full(k, 1 / k))
    examples = Examples.clean(dataset.clean, k) + Examples.of(dataset.noisy.inputs, relabelled)
    result = fit(
        seeded_model(small_cnn, dataset.input_shape, k, 0),
        examples,
        Phase(steps=200, learning_rate=0.05, batch_size=32, eval_every=10),
        dataset.validation,
        seed=0,
        weights=(1.0, 1.0, 1.0),
        mixup_alpha=0.5,
        engine=engine,
    )
    return [entry | {"processes": engine.world_size} for entry in result.history] * engine.is_first


def compare_processes() -> pd.DataFrame:
    """The loss curves of one process and of two."""
    curves = []
    for number in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(number), "-m", "benchmarks.resilience", "--curve"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "curve.json"
            subprocess.run(
                [*command, str(path)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            curves += json.loads(path.read_text())
    return pd.DataFrame(curves)


def largest_difference(curves: pd.DataFrame) -> float:
    """The largest relative difference of any loss at any evaluation."""
    losses = ["clean_loss", "non_nc_loss", "nc_loss", "val_loss"]
    single, double = (curves[curves.processes == n][losses].to_numpy() for n in (1, 2))
    return float(np.max(np.abs(single - double) / np.abs(single)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="(default 10)")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--run-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--curve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_in:
        return run_in(options.run_in)
    if options.curve:
        if curve := loss_curve():
            options.curve.write_text(json.dumps(curve))
        return None
    with tempfile.TemporaryDirectory() as folder:
        kills = pd.DataFrame(kill_and_resume(options.kills, Path(folder)))
    print(kills.to_string(index=False))
    curves = compare_processes()
    print(f"one process and two: losses differ by at most {largest_difference(curves):.2g} of 1")
    save_record(
        options.record,
        title="A run that is killed ten times, and a phase of training divided over two processes",
        tables={"kills": kills, "curves": curves},
        settings={"kills": options.kills, "checkpoint_every": EVERY},
        overwrite=True,
    )
    print(f"recorded in {options.record}")
    return None


if __name__ == "__main__":
    main()
