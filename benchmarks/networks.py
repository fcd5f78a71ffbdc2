"""Networks that can learn labels by heart: trained in full, or in their upper part.

The paper's networks have the room to memorise wrong labels, a head on frozen features has less
(each run counts how many are repeated). So the question whether finding non-conforming images
helps is asked again here, where these images are alike and carry consistent labels: all
of a held-out class stand under one known class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

import genkl
from benchmarks import studies
from benchmarks.studies import SEEDS, Case, summary
from benchmarks.sweep import Cell
from genkl.baselines import Groundwork, run_method
from genkl.baselines.method import FACTOR
from genkl.data import NoisyDataset, Truth
from genkl.data.base import NON_CONFORMING, Kind
from genkl.data.cifar10 import read_cifar10_labels
from genkl.data.clothing_dataset import read_clothing_dataset
from genkl.data.planting import label_strangers
from genkl.data.registry import CIFAR10, CLOTHING_DATASET
from genkl.data.sources import find_data
from genkl.features import EFFICIENTNET_LITE0
from genkl.learn import Phase, Run, entropy_rule, flag_nothing
from genkl.networks import small_resnet

NETWORK_SEEDS = SEEDS[:3]
RATES = (1.0, 0.3, 3.0)
"""Factors of the learning rate; each method's is chosen by the mean validation accuracy."""
OTHERS = ("clean set alone", "given labels", "given labels + fine-tuning")
OTHERS += ("gold loss correction", "confident learning", "GCE", "DivideMix core")
OTHERS += ("GenKL calibrated",)
"""Three plain ones; the three that lose least in the main comparison; one with two networks; and
the one that `benchmarks.calibrated` is about."""
PIECES = ("GenKL", "GenKL, no NC stage", "GenKL, entropy", "GenKL, told the NC", "GenKL, no mixup")
BY_HEART = "given labels, last step"
"""No validation chooses its step, and nothing fine-tunes it: what a network ends up with."""
COMPARED = (*OTHERS, *PIECES, BY_HEART)
HELD_OUT = ("deer", "truck")
SIDE = 128
"""Height and width of clothes; what lies below the trained blocks is computed once."""
UPPER = 6
"""The first block of EfficientNet-Lite0 that is trained, of 0 to 6."""


def unshuffled_resnet(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """ResNet-8 on 2 x 2 pixels as one: a quarter of the time, and nothing of the image is lost."""
    channels, height, width = input_shape
    inner = small_resnet((4 * channels, height // 2, width // 2), num_classes, depth=8)
    return nn.Sequential(nn.PixelUnshuffle(2), inner)


def lower_blocks() -> nn.Module:
    """EfficientNet-Lite0 below `UPPER`, to maps as rows: (B, 3, H, W) to (B, C h w)."""
    model = EFFICIENTNET_LITE0.build()
    return nn.Sequential(model.conv_stem, model.bn1, *model.blocks[:UPPER], nn.Flatten()).eval()


def upper_blocks(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The rest, with ImageNet's weights, and a fresh classifier: (B, C h w) to logits (B, k)."""
    model = EFFICIENTNET_LITE0.build()
    channels = model.blocks[UPPER][0].conv_pw.in_channels
    side = round((input_shape[0] // channels) ** 0.5)
    rest = (*model.blocks[UPPER:], model.conv_head, model.bn2, model.global_pool)
    maps = nn.Unflatten(1, (channels, side, side))
    return nn.Sequential(maps, *rest, nn.Linear(model.num_features, num_classes)).train()


def one_label_each(
    dataset: NoisyDataset, truth: Truth, groups: np.ndarray
) -> tuple[NoisyDataset, Truth]:
    """Strangers of one group all get the label that most of them have.

    Args:
        dataset, truth: with given labels that are plausible one by one.
        groups: of the noisy instances, such as their held-out class, shape (N,).
    """
    strange = truth.labels < 0
    given, groups = dataset.noisy.labels.numpy()[strange], groups[strange]
    chosen = given.copy()
    for group in np.unique(groups):
        chosen[groups == group] = np.bincount(given[groups == group]).argmax()
    return label_strangers(dataset, truth, chosen, strange)


def load_cifar(seed: int) -> tuple[NoisyDataset, Truth]:
    """3,000 images with CIFAR-10N's worst labels; two classes are held out."""
    sizes = {"clean_per_class": 50, "validation_per_class": 50, "noisy_limit": 3000}
    held_out = {"held_out": HELD_OUT, "held_out_labels": "human"}
    dataset, truth = genkl.load_dataset("cifar10n", seed=seed, labels="worst", **sizes, **held_out)
    classes = read_cifar10_labels("train", find_data(CIFAR10))
    return one_label_each(dataset, truth, classes[truth.ids])


def load_clothes(seed: int) -> tuple[NoisyDataset, Truth]:
    """The clothes of the main comparison, as maps of the lower blocks."""
    dataset, truth = studies.load("clothing", seed)
    labels = read_clothing_dataset(find_data(CLOTHING_DATASET))[1]
    dataset, truth = one_label_each(dataset, truth, labels[truth.ids])
    ids, maps = clothes_maps()
    return genkl.use_features(dataset, maps, ids, name=f"blocks below {UPPER}"), truth


@functools.cache
def clothes_maps():
    """Ids of all images of the clothing dataset, and their maps, shape (N, C h w)."""
    dataset = studies.splits.whole("clothing-dataset", 25).dataset
    below = replace(EFFICIENTNET_LITE0, name=f"{EFFICIENTNET_LITE0.name}-below-{UPPER}")
    below = replace(below, build=lower_blocks)
    made = genkl.featurize(dataset, below, size=SIDE, progress=False)
    parts = made.noisy, made.test
    return (
        np.concatenate([part.ids.numpy() for part in parts]),
        np.concatenate([part.inputs.numpy() for part in parts]),
    )


@dataclass(frozen=True)
class Network(Case):
    """A data set and a network to be trained on it.

    Attributes:
        draw: from a seed to the data set and its truth.
        make_model: the network.
        train: the phase on the noisy split; as many rows a step are learned from the clean one.
    """

    draw: Callable[[int], tuple[NoisyDataset, Truth]] | None = None
    make_model: Callable[[tuple[int, ...], int], nn.Module] | None = None
    train: Phase | None = None

    def preset(self) -> genkl.GenKLConfig:
        """One model each round, two rounds: a network takes as long as hundreds of heads."""
        weights = (self.train.batch_size / 32 * weight for weight in (1.0, 32.0, 1.0))
        return replace(
            getattr(genkl, self.config),
            omega=tuple(weights),
            pretrain=replace(self.train, steps=self.train.steps // 4),
            train=self.train,
            first_ensemble=2,
            ensemble=1,
            max_rounds=2,
        )


NETWORKS = {
    "cifar10n-resnet": Network(
        "cifar10n",
        "CIFAR-10N worst, a ResNet in full",
        draw=load_cifar,
        make_model=unshuffled_resnet,
        train=Phase(steps=1200, learning_rate=0.1, weight_decay=5e-4, eval_every=60),
    ),
    "clothing-blocks": Network(
        "clothing-dataset",
        "clothes, upper blocks of EfficientNet-Lite0",
        options=studies.CASES["clothing"].options,
        draw=load_clothes,
        make_model=upper_blocks,
        train=Phase(steps=450, learning_rate=0.02, weight_decay=5e-4, eval_every=45),
    ),
}
"""What is trained, by name."""


@functools.lru_cache(maxsize=1)
def prepared(data: str, seed: int) -> tuple[Groundwork, Truth]:
    """What methods share, and the truth."""
    network = NETWORKS[data]
    dataset, truth = network.draw(seed)
    options = {"make_model": network.make_model, "backbone": None, "engine": "cpu"}
    return Groundwork.prepare(dataset, network.preset(), seed=seed, **options), truth


def run_cell(
    study: str, data: str, seed: int, method: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """One run; ``memorised`` is the share of wrong given labels that the models repeat.

    Args:
        study: "networks".
        data: of `NETWORKS`.
        seed: of splits, weights and batches.
        method: of `COMPARED`.
        settings: the factor of the learning rate.
    """
    work, truth = prepared(data, seed)
    dataset = work.dataset
    run = _run(work, truth, NETWORKS[data], method, settings)
    probs = genkl.predict_probs(run.models, dataset.noisy.inputs, engine="cpu")
    repeated = probs.argmax(axis=1) == dataset.noisy.labels.numpy()
    shares = {
        "memorised": repeated[truth.kinds == Kind.MISLABELLED].mean(),
        "memorised_nc": repeated[np.isin(truth.kinds, NON_CONFORMING)].mean(),
    }
    known = truth if method in PIECES else None
    return {**summary(run, dataset.test, known), **{k: float(v) for k, v in shares.items()}}


def _run(
    work: Groundwork, truth: Truth, network: Network, method: str, settings: Mapping[str, Any]
) -> Run:
    config, options = network.preset(), {"make_model": network.make_model, "backbone": None}
    options |= {"seed": work.setup.seed, "engine": "cpu", "progress": False}
    if method not in PIECES:
        if method == BY_HEART:
            config = replace(config, train=replace(config.train, eval_every=config.train.steps))
            method = "given labels"
        options |= {"settings": settings, "groundwork": work}
        return run_method(method, work.dataset, config, **options)
    rate = config.train.learning_rate * settings[FACTOR]
    config = replace(config, train=replace(config.train, learning_rate=rate))
    if method == "GenKL, no mixup":
        config = replace(config, mixup_alpha=0.0)
    is_nc = np.isin(truth.kinds, NON_CONFORMING)
    rules = {
        "GenKL, no NC stage": flag_nothing,
        "GenKL, entropy": entropy_rule(config.max_flag_rate),
        "GenKL, told the NC": lambda *_: is_nc,
    }
    options |= {"identify": rules.get(method), "predictor": tuple(work.predictor())}
    return genkl.run_genkl(work.dataset, config, **options)


def network_cells(data: Sequence[str]) -> list[Cell]:
    """Every method with every learning rate on every seed."""
    return [
        Cell({"study": "networks", "data": name, "method": m, "settings": {FACTOR: r}, "seed": s})
        for name in data
        for s in NETWORK_SEEDS
        for m in COMPARED
        for r in RATES
    ]


def tuned(table: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The runs with the rate as it comes and with the chosen one, in a column "tuning"."""
    rates = table["settings"].map(lambda settings: settings[FACTOR])
    of_method = chosen.set_index(["data", "method"])["settings"]
    picked = [of_method[d, m][FACTOR] for d, m in zip(table["data"], table["method"], strict=True)]
    parts = {"default": rates == RATES[0], "tuned": rates == picked}
    return pd.concat([table[mask].assign(tuning=name) for name, mask in parts.items()])
