"""The benchmark of training: a step against the published way, and heads together against in turn.

    python -m benchmarks.training            # about six minutes on two cores
    python -m benchmarks.training --quick    # smaller, and nothing is compiled: does it work?

Both sides of a ratio take turns in one process, step by step or call by call, so that whatever else
the machine does falls on both. Steps of this package are those of `genkl.fit` itself, which is held
up between two steps while the others take theirs. Seconds are medians over the turns, ratios
medians over the ratios of each turn, with the lowest and highest. Images are in memory: reading
them is no part of it. Where there is a GPU, the steps are measured on it, too.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import genkl
from benchmarks.measuring import take_turns
from genkl import Engine, Examples, Phase, Role, fit, linear_head, relabel_instances, small_cnn
from genkl.data import Split
from genkl.data.base import make_split
from genkl.learn import Draw, draw_batches, fit_together
from genkl.learn.phase import make_optimizer
from genkl.networks import seeded_model
from genkl.records import save_record

RECORD = Path("results/benchmarks/training.json")
BATCH = 32
"""Noisy rows of a step, and as many clean ones, as in the paper's settings for Clothing1M."""
WEIGHTS = (1 / BATCH, 32 / BATCH, 1 / BATCH)
MIXUP = 0.5
NC_SHARE = 1 / 6
PATIENCE = 120.0
"""Seconds after which a case starts no other turn, once it has had two."""
LONG = 10**6
"""More steps than anybody waits for: a fit that is measured is not to end."""
FEATURES, CLASSES, HEADS_ROWS = 1280, 10, 4000

Network = Callable[[tuple[int, ...], int], nn.Module]


def resnet50(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """ResNet-50 with random weights."""
    from torchvision.models import resnet50

    return resnet50(weights=None, num_classes=num_classes)


def make_examples(clean: Tensor, noisy: Tensor, k: int, seed: int = 0) -> Examples:
    """Clean and noisy inputs with made-up labels and predictions, relabelled; clean ones first."""
    rng = np.random.default_rng(seed)
    probs, given = rng.dirichlet(np.ones(k), len(noisy)), rng.integers(0, k, len(noisy))
    is_nc = rng.random(len(noisy)) < NC_SHARE
    verified = make_split(clean, rng.integers(0, k, len(clean)), np.arange(len(clean)))
    relabelled = relabel_instances(probs, given, is_nc, np.full(k, 1 / k))
    return Examples.clean(verified, k) + Examples.of(noisy, relabelled)


def phase_of(batch: int) -> Phase:
    """A phase that doesn't end, in batches of so many noisy and so many clean rows."""
    return Phase(
        steps=LONG,
        learning_rate=1e-3,
        schedule="constant",
        batch_size=batch,
        clean_batch_size=batch,
        eval_every=LONG,
    )


# -- the published way -----------------------------------------------------------------------------


class PublishedTraining:
    """A step as the published scripts take it, written from its description.

    A forward pass for each role; targets looked up row by row in NumPy arrays on the host and
    brought back; softmax first, logarithm after; the loss read off the device in every step;
    images stored channels-first. Rows, mixing, loss and optimiser are those of `genkl.fit`.

    Args:
        model: trained in place, on its device.
        examples: N of them, in memory.
        phase: batch sizes and optimiser.
        seed: of the batches.
    """

    def __init__(self, model: nn.Module, examples: Examples, phase: Phase, seed: int) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.inputs = examples.inputs.to(self.device)
        self.table, self.roles = examples.targets.numpy(), examples.roles.numpy()
        self.draws = draw_batches(self.roles, phase, seed, mixup_alpha=MIXUP)
        self.optimizer = make_optimizer(model, phase)

    def step(self) -> float:
        """Learn from the next batch; its loss, in nats."""
        loss = self.loss(next(self.draws))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def loss(self, draw: Draw) -> Tensor:
        """Weighted sum of the roles' mean losses."""
        total = torch.zeros((), device=self.device)
        for role, weight in zip(Role, WEIGHTS, strict=True):
            chosen = np.flatnonzero(self.roles[draw.rows] == role)
            if len(chosen):
                total = total + weight * self._role_loss(role, chosen, draw)
        return total

    def _role_loss(self, role: Role, chosen: np.ndarray, draw: Draw) -> Tensor:
        rows = torch.from_numpy(draw.rows[chosen]).to(self.device)
        images, targets = self.inputs[rows], self._targets(rows)
        if role == Role.NC:
            return cross_entropy(self.model(images), targets)
        partner = np.searchsorted(chosen, draw.mixing.partner.numpy()[chosen])
        partner = torch.from_numpy(partner).to(self.device)
        keep = float(draw.mixing.keep[chosen[0]])
        logits = self.model(keep * images + (1 - keep) * images[partner])
        cost = cross_entropy if role == Role.CLEAN else double_hot
        return keep * cost(logits, targets) + (1 - keep) * cost(logits, targets[partner])

    def _targets(self, rows: Tensor) -> Tensor:
        found = [self.table[row] for row in rows.cpu().numpy()]
        return torch.from_numpy(np.array(found)).to(self.device)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows, as the logarithm of a softmax."""
    return -(targets * torch.log(torch.softmax(logits, dim=1))).sum(dim=1).mean()


def double_hot(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows, as the logarithm of a softmax."""
    return -torch.log((targets * torch.softmax(logits, dim=1)).sum(dim=1)).mean()


# -- this package ----------------------------------------------------------------------------------


class HeldUp:
    """A call that takes steps when it is told to, so that others can take theirs in between.

    Args:
        call: `fit` with everything but ``watch``.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call, self.left, self.error = call, 0, None
        self.ended = False
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def steps(self, count: int) -> None:
        """Take so many steps.

        Raises:
            Exception: what the call raised.
        """
        self.left = count
        self.go.release()
        self.done.acquire()
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        """Leave the call, in the middle of it."""
        self.ended = True
        self.go.release()
        self.thread.join()

    def _run(self) -> None:
        self.go.acquire()
        try:
            if not self.ended:
                self.call(watch=self._watch)
        except _EndedError:
            return
        except Exception as error:
            self.error = error
        self.done.release()

    def _watch(self, event: str, facts: object) -> None:
        if event != "step":
            return
        self.left -= 1
        if self.left == 0:
            self.done.release()
            self.go.acquire()
            if self.ended:
                raise _EndedError


class _EndedError(Exception):
    """Nobody waits for the call any more."""


# -- steps -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A network, its data, and how often it is measured.

    Attributes:
        name: what the table says.
        network: its factory.
        examples, validation: what it learns from, and what `fit` insists on.
        batch: noisy rows of a step, and clean ones.
        block: steps of a turn.
        turns: that are measured, after one that is not; fewer on a slow machine.
        engines: the ways to take a step with this package, by name.
    """

    name: str
    network: Network
    examples: Examples
    validation: Split
    batch: int
    block: int
    turns: int
    engines: dict[str, Engine]


def cases(device: str, quick: bool) -> Iterator[Case]:
    """ResNet-50 at 224 pixels, and the small CNN on the digits."""
    at = partial(Engine, accelerator=device)
    fast = device == "cuda"
    side, batch = (64, 4) if quick else (224, BATCH)
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(4 * batch, 3, side, side, generator=rng)
    yield Case(
        f"ResNet-50, {side} px",
        resnet50,
        make_examples(images[:batch], images[batch:], 14),
        make_split(images[:2], np.array([0, 1]), np.arange(2)),
        batch,
        block=10 if fast else 1,
        turns=1 if quick else 10 if fast else 3,
        engines={
            "float32, channels-first": at(channels_last=False),
            "float32 (as it comes)": at(),
            "bf16": at(precision="bf16-mixed"),
            **({} if quick else {"compiled": at(compile=True)}),
            # On a CPU another compilation takes longer than all that it would speed up here.
            **({"bf16, compiled": at(precision="bf16-mixed", compile=True)} if fast else {}),
        },
    )
    digits, _ = genkl.load_dataset("digits", seed=0)
    yield Case(
        "small CNN, 8 px",
        small_cnn,
        make_examples(digits.clean.inputs, digits.noisy.inputs, digits.num_classes),
        digits.validation,
        BATCH,
        block=5 if quick else 20,
        turns=3 if quick else 15,
        engines={
            "float32 (as it comes)": at(),
            "float32, channels-last": at(channels_last=True),
            "bf16": at(precision="bf16-mixed"),
            **({} if quick else {"compiled": at(compile=True)}),
        },
    )


def measure_steps(case: Case, device: str) -> list[dict[str, Any]]:
    """A row for the published way and for each engine; all take turns."""
    takers, held = ways_to_step(case, device)
    works = [name for name, take in takers.items() if _works(name, take, case, device)]
    ways = {name: partial(timed, takers[name], case.block, device) for name in works}
    seconds = take_turns(ways, case.turns, patience=PATIENCE)
    for call in held:
        call.end()
    rows = []
    for name, times in seconds.items():
        steps = [taken / case.block for taken in times]
        published = [taken / case.block for taken in seconds["published"]]
        row = {"device": device, "network": case.name, "step": name, "images": 2 * case.batch}
        row |= {"turns": len(times), **summary(steps, published)}
        row["images_per_second"] = 2 * case.batch / row["seconds"]
        rows.append(row)
        print(
            f"{device:5} {case.name:18} {name:24} {1e3 * row['seconds']:10.2f} ms "
            f"{row['images_per_second']:9.1f} images/s {told(row)}"
        )
    return rows


def ways_to_step(case: Case, device: str) -> tuple[dict[str, Callable[[int], None]], list[HeldUp]]:
    """Name -> a call that takes so many steps, and the calls that have to be ended."""
    shape, k = tuple(case.examples.inputs.shape[1:]), case.examples.targets.shape[1]
    phase = phase_of(case.batch)
    build = partial(seeded_model, case.network, shape, k, 0)
    published = PublishedTraining(build().to(device), case.examples, phase, seed=0)

    def published_steps(count: int) -> None:
        for _ in range(count):
            published.step()

    data = (case.examples, phase, case.validation)
    options = {"seed": 0, "weights": WEIGHTS, "mixup_alpha": MIXUP}
    held = {
        name: HeldUp(partial(fit, build(), *data, engine=engine, **options))
        for name, engine in case.engines.items()
    }
    steps = {name: call.steps for name, call in held.items()}
    return {"published": published_steps, **steps}, list(held.values())


def _works(name: str, take: Callable[[int], None], case: Case, device: str) -> bool:
    """Whether a first turn, which is not measured, ends well: a compiler may not be there."""
    try:
        timed(take, case.block, device)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"{device:5} {case.name:18} {name:24} doesn't work here: {why}")
        return False
    return True


def timed(take: Callable[[int], None], count: int, device: str) -> float:
    """Seconds until the device has done what was asked for."""
    start = time.perf_counter()
    take(count)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def summary(times: list[float], reference: list[float]) -> dict[str, float]:
    """Median and range of seconds, and of how many times faster than the reference."""
    ratios = np.divide(reference, times)
    return {
        "seconds": float(np.median(times)),
        "seconds_low": min(times),
        "seconds_high": max(times),
        "times_faster": float(np.median(ratios)),
        "times_faster_low": float(ratios.min()),
        "times_faster_high": float(ratios.max()),
    }


def told(row: dict[str, Any]) -> str:
    """The ratio of a row, with its range."""
    low, high = row["times_faster_low"], row["times_faster_high"]
    return f"{row['times_faster']:6.2f} x ({low:.2f} to {high:.2f})"


# -- heads -----------------------------------------------------------------------------------------


def measure_heads(
    members: int, threads: int, steps: int, turns: int, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Whole phases of an ensemble of linear heads: one after the other, and together."""
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((HEADS_ROWS, FEATURES), dtype=np.float32))
    examples = make_examples(inputs[:500], inputs[500:], CLASSES)
    validation = make_split(inputs[:500], rng.integers(0, CLASSES, 500), np.arange(500))
    phase = Phase(steps=steps, learning_rate=0.01, batch_size=BATCH)
    engine = Engine(accelerator=device)
    options: dict[str, Any] = {"weights": WEIGHTS, "mixup_alpha": MIXUP, "engine": engine}
    data = (examples, phase, validation)

    def models() -> list[nn.Module]:
        return [seeded_model(linear_head, (FEATURES,), CLASSES, seed) for seed in range(members)]

    def in_turn(heads: list[nn.Module]) -> None:
        for seed, head in enumerate(heads):
            fit(head, *data, seed=seed, **options)

    def together(heads: list[nn.Module]) -> None:
        fit_together(heads, *data, seeds=range(members), **options)

    def seconds_of(way: Callable[[list[nn.Module]], None]) -> float:
        heads = models()
        return timed(lambda _: way(heads), 1, device)

    ways = {"in turn": partial(seconds_of, in_turn), "together": partial(seconds_of, together)}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        take_turns(ways, 1)
        seconds = take_turns(ways, turns)
    finally:
        torch.set_num_threads(before)
    rows = []
    for name, times in seconds.items():
        row = {"device": device, "members": members, "threads": threads, "way": name}
        row |= {"steps": steps, "turns": turns, **summary(times, seconds["in turn"])}
        rows.append(row)
        print(
            f"{device:5} {members:2} heads, {threads} thread(s) {name:9} "
            f"{1e3 * row['seconds'] / steps:7.2f} ms a step of all {told(row)}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in a minute")
    parser.add_argument("--record", type=Path, default=RECORD)
    options = parser.parse_args()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    steps, heads = [], []
    for device in devices:
        for case in cases(device, options.quick):
            steps += measure_steps(case, device)
        for members in (5, 10):
            for threads in sorted({1, torch.get_num_threads()}) if device == "cpu" else [1]:
                size = (50, 2) if options.quick else (200, 5)
                heads += measure_heads(members, threads, *size, device=device)
    settings = {"batch": BATCH, "mixup_alpha": MIXUP, "nc_share": NC_SHARE, "features": FEATURES}
    settings |= {"classes": CLASSES, "rows": HEADS_ROWS, "quick": options.quick}
    save_record(
        options.record,
        title="Time of training",
        tables={"steps": pd.DataFrame(steps), "heads": pd.DataFrame(heads)},
        settings=settings,
        overwrite=True,
    )
    print(f"recorded in {options.record}")


if __name__ == "__main__":
    main()
