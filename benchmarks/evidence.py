"""Evidence for the benchmark of detectors: predictions, features and labels of every data set.

Ten heads (or small networks) are trained on the clean set; they see the noisy instances, and the
held-out conforming ones, twice: as they are, and in a second view (flipped, or shifted by a
pixel). The strangers' given labels come in several ways, as plausible as these make them; for each
way one more model learns the noisy instances under their given labels, and is watched. Nothing here
knows the truth but to plant noise and to pass it on. What was computed is kept in the cache folder,
under a hash of the settings and of the package's code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import genkl
from genkl.data import Images, Kind, NoisyDataset, Split, Truth
from genkl.data.base import NON_CONFORMING
from genkl.data.clothing_dataset import read_clothing_dataset
from genkl.data.planting import OOD_LABELS
from genkl.data.registry import CLOTHING_DATASET, DATASETS, load_dataset
from genkl.data.sources import find_data, is_present
from genkl.features import cache_folder
from genkl.learn import Phase
from genkl.learn.phase import make_optimizer
from genkl.networks import default_model, seeded_model
from genkl.predict import predict_logits
from genkl.provenance import code_fingerprint
from genkl.storage import load_tensors, save_tensors

NUM_MODELS = 10
CODE = ("genkl.features", "genkl.data", "genkl.losses", "genkl.networks", "genkl.predict")
CODE += ("genkl.presets", "genkl.learn")
PARTS = ("noisy", "reference", "labels", "learning")
EPOCHS = 20
"""That the model which is watched learns the given labels for."""
HELD_OUT_TEST = 500
"""Test images, at most, for the predictor that strangers' labels are drawn from."""


@dataclass(frozen=True)
class Case:
    """One data set of the benchmark.

    Attributes:
        dataset: as `load_dataset` knows it.
        title: in tables.
        options: of the loader.
        config: settings of the first predictor.
        pixels: of frozen features; None learns from the inputs as they are.
        strangers: a data set whose noisy images are injected as OOD, and their share.
        network: of `genkl.networks`; None for the usual one.
        labels: how strangers get their given labels, see `label_strangers`, the main way first;
            "human" where people gave them, if need be beside the nearest class for those that
            nobody gave a known label; "web" where they came with the image.
        drawn: kinds whose given labels the loader, or planting, draws at random.
        imbalance: how many times rarer the rarest class is than the commonest, in the clean and
            the noisy split (by given label), in geometric steps; 1 leaves them as they are.
    """

    dataset: str
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    config: str = "PHOTOGRAPHS"
    pixels: int | None = None
    strangers: tuple[str, float] | None = None
    network: str | None = None
    labels: tuple[str, ...] = OOD_LABELS
    drawn: tuple[Kind, ...] = (Kind.OOD,)
    imbalance: float = 1.0

    @property
    def needs(self) -> tuple[str, ...]:
        """Data sets that have to be on this machine."""
        return (self.dataset,) if self.strangers is None else (self.dataset, self.strangers[0])

    def is_present(self) -> bool:
        """Whether they all are."""
        entries = [DATASETS[name] for name in self.needs]
        return all(is_present(s) for entry in entries for s in (entry.source, *entry.also_needs))


GARMENTS = {"non_conforming": "garments", "label_noise": 0.3}
HELD_OUT = {"labels": "worst", "noisy_limit": 5000, "held_out": ("cat", "truck")}
STRICT = {"noisy_limit": 5000, "ambiguous_below": 0.6}
CASES = {
    "digits": Case("digits", "digits (planted)", config="DIGITS"),
    "solar-cells": Case(
        "solar-cells",
        "solar cells (an expert's doubt)",
        config="SOLAR_CELLS",
        pixels=160,
        labels=("human",),
    ),
    "clothing-doubt": Case(
        "clothing-dataset",
        "clothes (people's doubts)",
        {"non_conforming": "doubt", "label_noise": 0.3},
        pixels=160,
        drawn=NON_CONFORMING,
    ),
    "clothing-garments": Case(
        "clothing-dataset", "clothes (foreign garments)", GARMENTS, pixels=160, drawn=NON_CONFORMING
    ),
    "cifar10h": Case(
        "cifar10h",
        "CIFAR-10H (votes; clothes as strangers)",
        {"noisy_limit": 5000},
        pixels=96,
        strangers=("clothing-dataset", 0.05),
    ),
    "cifar10h-strict": Case(
        "cifar10h", "CIFAR-10H (top vote below .6)", STRICT, pixels=96, labels=("human",)
    ),
    "cifar10n": Case(
        "cifar10n",
        "CIFAR-10N (worst labels; two classes held out)",
        HELD_OUT,
        pixels=96,
        labels=("human", *OOD_LABELS),
    ),
    "food101n": Case(
        "food101n",
        "Food-101N (verification labels)",
        {"clean_limit": 5000, "noisy_limit": 20_000},
        pixels=160,
        labels=("web",),
    ),
    "clothing1m": Case(
        "clothing1m",
        "Clothing1M (the authors' 200)",
        {"clean_limit": 5000},
        pixels=160,
        labels=("web",),
    ),
}
"""The last two are for those who have the data: everything else is public and small. Clothing1M is
a million images, which take a GPU an hour and two cores days: its 200 would be lost in a sample."""


@dataclass(frozen=True)
class Seen:
    """What was gathered about a split: N instances, M models, k classes, d features.

    Attributes:
        logits: shape (M, N, k).
        view_logits: the same of the second view.
        features: shape (N, d): a frozen backbone's, or the inputs as numbers.
        groups: what is resampled together, the sender or the image itself, shape (N,).
    """

    logits: np.ndarray
    view_logits: np.ndarray
    features: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Gathered:
    """Of one data set and one seed: the noisy instances, the reference, the truth.

    Attributes:
        noisy: to be scored, N of them.
        reference: m held-out conforming instances.
        kinds: what the noisy ones are, shape (N,), see `Kind`.
        val_accuracy: of the models' averaged prediction on the reference.
        labels: way -> given labels of the noisy ones and then the verified ones, shape (N + m,).
        learning: way -> logits of a model that learned all of these, shape (T, N + m, k).
        heads: of the models, shape (M, k, d + 1), see `Evidence`; none where they are no linear
            heads on the features.
    """

    noisy: Seen
    reference: Seen
    kinds: np.ndarray
    val_accuracy: float
    labels: Mapping[str, np.ndarray]
    learning: Mapping[str, np.ndarray]
    heads: np.ndarray | None = None


class Flipped(Images):
    """Images, mirrored."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> Images:
        return Flipped(self.images.take(rows))

    def name(self, row: int) -> str:
        return self.images.name(row)

    def read(self, row: int) -> Tensor:
        return self.images.read(row).flip(-1)

    def fingerprint(self, row: int) -> bytes:
        return hashlib.blake2b(b"flipped" + self.images.fingerprint(row), digest_size=16).digest()


CLEAN_SIZES = {
    "digits": (4, 8, 16, 32),
    "solar-cells": (12, 25, 50),
    "clothing-dataset": (5, 10, 25),
    "cifar10h": (5, 10, 25, 50),
    "cifar10n": (5, 10, 25, 50),
}
"""Data set -> clean images of each class; clothes have too few skirts for more."""
FEWER = 2000
"""Noisy images of CIFAR-10 in those conditions: each draws others, whose features take time."""
IMBALANCES = (1.0, 5.0, 20.0)


def retrained(case: Case) -> Iterable[tuple[str, float | str, dict[str, Any]]]:
    """Conditions that need new predictions, as changes to the case."""
    fewer = {"noisy_limit": FEWER} if case.dataset.startswith("cifar") else {}
    plain = {"options": fewer, "labels": ()}
    for size in CLEAN_SIZES.get(case.dataset, ()):
        yield "clean per class", size, plain | {"options": {**fewer, "clean_per_class": size}}
    for imbalance in IMBALANCES:
        yield "imbalance", imbalance, plain | {"imbalance": imbalance}
    if case.pixels is None:
        for network in ("linear_head", "small_cnn", "small_resnet"):
            yield "network", network, plain | {"network": network}
    else:
        for pixels in (64, 96) if fewer else (64, 96, 160):
            yield "pixels", pixels, plain | {"pixels": pixels}


def gather(name: str, seed: int, **changes: Any) -> Gathered:
    """Load, train, predict; or read what was kept.

    Args:
        name: of `CASES`.
        seed: of the splits, of planted noise and of training.
        changes: fields of the case to change, such as pixels; ``options`` are added to its own.
            Without ``labels`` strangers keep those that were drawn, and no model learns them.
    """
    case = CASES[name]
    if "options" in changes:
        changes["options"] = {**case.options, **changes["options"]}
    case = replace(case, **changes)
    code = code_fingerprint(*CODE, "benchmarks.evidence")
    key = json.dumps([case.__dict__, seed, NUM_MODELS, code], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:20]
    path = cache_folder() / "evidence" / f"{name}-{seed}-{digest}.safetensors"
    if not path.exists():
        found = _gather(case, seed)
        arrays = {"kinds": found.kinds, "heads": found.heads}
        for part in PARTS:
            fields = getattr(found, part)
            fields = fields if isinstance(fields, Mapping) else vars(fields)
            arrays |= {f"{part}.{key}": array for key, array in fields.items()}
        tensors = {
            key: torch.from_numpy(np.ascontiguousarray(array))
            for key, array in arrays.items()
            if array is not None
        }
        save_tensors(path, tensors, {"val_accuracy": found.val_accuracy})
        return found
    tensors, values = load_tensors(path)
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for key, tensor in tensors.items():
        part, _, field_name = key.partition(".")
        parts.setdefault(part, {})[field_name] = tensor.numpy()
    noisy, reference, labels, learning = (parts[part] for part in PARTS)
    kinds, heads = parts["kinds"][""], parts.get("heads", {}).get("")
    seen = Seen(**noisy), Seen(**reference)
    return Gathered(*seen, kinds, values["val_accuracy"], labels, learning, heads)


def _gather(case: Case, seed: int) -> Gathered:
    dataset, truth = _load(case, seed)
    kept = HELD_OUT_TEST if case.labels else 1  # it teaches the predictor that draws labels
    test = np.random.default_rng([seed, 3]).permutation(len(dataset.test))[:kept]
    dataset = replace(dataset, test=dataset.test.take(np.sort(test)))
    second = dataset.map_splits(_second_view)
    if case.pixels is not None:
        dataset, second = (
            genkl.featurize(view, size=case.pixels, progress=False) for view in (dataset, second)
        )
    if case.network == "linear_head":
        dataset, second = (d.map_inputs(lambda x: x.flatten(1)) for d in (dataset, second))
    config = replace(getattr(genkl, case.config), first_ensemble=NUM_MODELS)
    make_model = default_model if case.network is None else getattr(genkl, case.network)
    models = genkl.pretrain_models(
        dataset, config, seed=seed, make_model=make_model, backbone=None, engine="cpu"
    )
    groups = _senders(case) or (lambda ids: ids)
    noisy, reference = (
        _see(models, getattr(dataset, name), getattr(second, name), groups)
        for name in ("noisy", "validation")
    )
    probs = torch.from_numpy(reference.logits).softmax(-1).mean(0)
    verified = dataset.validation.labels.numpy()
    accuracy = float((probs.argmax(-1).numpy() == verified).mean())
    labels, learning = {}, {}
    for way in case.labels or ("as drawn",):
        given = _given(case, dataset, truth, way, seed)
        labels[way] = np.concatenate([given, verified])
        if case.labels:
            inputs = torch.cat([dataset.noisy.inputs, dataset.validation.inputs])
            model = seeded_model(make_model, inputs.shape[1:], dataset.num_classes, seed)
            learning[way] = watch(model, inputs, labels[way], config.train, seed)
    heads = _as_heads(models) if case.pixels is not None else None
    return Gathered(noisy, reference, truth.kinds, accuracy, labels, learning, heads)


def _given(case: Case, dataset: NoisyDataset, truth: Truth, way: str, seed: int) -> np.ndarray:
    """Given labels of the noisy split when strangers get theirs in this way."""
    rows = np.isin(truth.kinds, case.drawn)
    if way in OOD_LABELS:
        return genkl.label_strangers(dataset, truth, way, rows, seed)[0].noisy.labels.numpy()
    if way != "human" or "held_out" not in case.options:
        return dataset.noisy.labels.numpy()
    options = {**case.options, "held_out_labels": "human", "noisy_limit": None}
    people, _ = load_dataset(case.dataset, seed=seed, **options)
    said = dict(zip(people.noisy.ids.tolist(), people.noisy.labels.tolist(), strict=True))
    nearest = _given(case, dataset, truth, "nearest class", seed)
    ids = dataset.noisy.ids.tolist()
    every = [said.get(i, label) for i, label in zip(ids, nearest.tolist(), strict=True)]
    return np.where(rows, every, dataset.noisy.labels.numpy())


def watch(
    model: nn.Module, inputs: Tensor, labels: np.ndarray, phase: Phase, seed: int
) -> np.ndarray:
    """Logits of all inputs after each of `EPOCHS` epochs of learning their labels.

    Returns:
        Shape (EPOCHS, N, k), float32.
    """
    optimizer, targets = make_optimizer(model, phase), torch.from_numpy(labels)
    generator, logits = torch.Generator().manual_seed(seed), []
    for _ in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(inputs), generator=generator).split(phase.batch_size):
            if len(rows) > 1:  # batch statistics need two
                optimizer.zero_grad()
                cross_entropy(model(inputs[rows]), targets[rows]).backward()
                optimizer.step()
        logits.append(predict_logits(model, inputs).numpy())
    return np.stack(logits)


def _as_heads(models: Sequence[nn.Module]) -> np.ndarray:
    """Weights and biases of linear heads, their standardisation included; shape (M, k, d + 1)."""
    heads = []
    for norm, linear in models:
        scaled = linear.weight / (norm.running_var + norm.eps).sqrt()
        bias = linear.bias - scaled @ norm.running_mean
        heads.append(torch.cat([scaled, bias[:, None]], dim=1).detach().numpy())
    return np.stack(heads)


def _senders(case: Case) -> Callable[[np.ndarray], np.ndarray] | None:
    """From ids to senders, where a data set has any."""
    if case.dataset != CLOTHING_DATASET.name:
        return None
    _, _, senders = read_clothing_dataset(find_data(CLOTHING_DATASET))
    return lambda ids: senders[ids]


def _see(models: Sequence[nn.Module], split: Split, second: Split, groups: Callable) -> Seen:
    return Seen(
        np.stack([predict_logits(model, split.inputs).numpy() for model in models]),
        np.stack([predict_logits(model, second.inputs).numpy() for model in models]),
        split.inputs.flatten(1).float().numpy(),
        groups(split.ids.numpy()),
    )


def _load(case: Case, seed: int) -> tuple[NoisyDataset, Truth]:
    dataset, truth = load_dataset(case.dataset, seed=seed, **case.options)
    if case.strangers is not None:
        name, share = case.strangers
        strangers, _ = load_dataset(name, seed=seed)
        dataset, truth = genkl.plant_noise(
            dataset,
            truth,
            seed=seed,
            ood=strangers.noisy.inputs,
            ood_share=share,
            ood_labels="random",
        )
    if case.imbalance > 1:
        rng = np.random.default_rng([seed, 1])
        rank = rng.permutation(dataset.num_classes)
        clean = _long_tail(dataset.clean, rank, case.imbalance, rng)
        noisy = _long_tail(dataset.noisy, rank, case.imbalance, rng)
        dataset = replace(dataset, clean=dataset.clean.take(clean), noisy=dataset.noisy.take(noisy))
        truth = replace(truth, labels=truth.labels[noisy], kinds=truth.kinds[noisy], ids=None)
    return dataset, truth


def _long_tail(
    split: Split, rank: np.ndarray, imbalance: float, rng: np.random.Generator
) -> np.ndarray:
    """Rows that are kept: of class c a share of imbalance^(-rank/(k-1)), at least one."""
    labels, rows = split.labels.numpy(), []
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        share = imbalance ** (-rank[label] / (len(rank) - 1))
        rows.append(rng.permutation(mine)[: max(1, round(share * len(mine)))])
    return np.sort(np.concatenate(rows))


def _second_view(split: Split) -> Split:
    if isinstance(split.inputs, Images):
        return replace(split, inputs=Flipped(split.inputs))
    if split.inputs.shape[-1] >= 32:
        return replace(split, inputs=split.inputs.flip(-1))
    return replace(split, inputs=split.inputs.roll(1, dims=-1))  # a mirrored digit is another one
