"""Plant noise whose truth is known: wrong labels, images of no class, images of two classes."""

from __future__ import annotations

import reprlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genkl.checks import check_choice, check_labels
from genkl.data.base import Kind, NoisyDataset, Split, Truth
from genkl.data.images import BlendedImages, Images, JoinedImages, as_images, resize_image


def check_rate(name: str, rate: float) -> None:
    """Refuse a rate outside [0, 1]."""
    if not 0 <= rate <= 1:
        raise ValueError(f"{name} is {rate}; it is a share, between 0 and 1")


NOISE_KINDS = ("symmetric", "pair")


def plant_label_noise(
    labels: np.ndarray,
    num_classes: int,
    rate: float,
    rng: np.random.Generator,
    noise_kind: str = "symmetric",
) -> np.ndarray:
    """Replace a share of the labels by another class.

    Exactly ``round(rate * N)`` labels change, and a changed label is always wrong.

    Args:
        labels: true classes, shape (N,).
        num_classes: k, at least 2.
        rate: share of wrong labels, in [0, 1].
        rng: source of randomness.
        noise_kind: "symmetric" (each other class equally likely) or "pair" (always the next
            class: one systematic confusion per class, as between neighbouring search terms).

    Returns:
        Noisy labels, shape (N,); the input is not changed.

    Raises:
        ValueError: rate outside [0, 1], or an unknown kind.
    """
    check_rate("rate", rate)
    check_choice("noise_kind", noise_kind, NOISE_KINDS)
    noisy = labels.copy()
    wrong = rng.choice(len(labels), round(rate * len(labels)), replace=False)
    shift = rng.integers(1, num_classes, len(wrong)) if noise_kind == "symmetric" else 1
    noisy[wrong] = (labels[wrong] + shift) % num_classes
    return noisy


def blend_pairs(
    images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Average pairs of images of two different classes: an image that two labels fit.

    Args:
        images: shape (2P, ...), consumed two by two.
        labels: shape (2P,).
        rng: source of randomness.

    Returns:
        Blends of shape (at most P, ...), and the two classes of each, shape (at most P, 2). Pairs
        of one class are re-dealt; where none can be formed any more the rest is left out.
    """
    left = rng.permutation(len(labels))
    pairs = []
    while len(left) > 1 and len(np.unique(labels[left])) > 1:
        first, rest = left[0], left[1:]
        second = rest[labels[rest] != labels[first]]
        if len(second) == 0:
            left = rest
            continue
        pairs.append((first, second[0]))
        left = rest[rest != second[0]]
    chosen = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return (images[chosen[:, 0]] + images[chosen[:, 1]]) / 2, labels[chosen]


def plant_confusion(
    labels: np.ndarray, confusion: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Replace labels as a confusion matrix says.

    The counts are those of the matrix, up to rounding (largest remainders); which instances get
    them is random.

    Args:
        labels: true classes, shape (N,).
        confusion: share of class i that is labelled j, shape (k, k), rows sum to 1.
        rng: source of randomness.

    Returns:
        Given labels, shape (N,); the input is not changed.

    Raises:
        ValueError: a matrix that is not square, has negative entries or a row that doesn't sum to
            1, or that lacks a class.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    k = len(confusion)
    if confusion.shape != (k, k) or (len(labels) and labels.max() >= k):
        raise ValueError(
            f"confusion has shape {confusion.shape}; expected (k, k), a row and a column per class"
        )
    if (confusion < 0).any() or not np.allclose(confusion.sum(axis=1), 1, atol=1e-6):
        row = int(np.argmax((confusion < 0).any(axis=1) | (abs(confusion.sum(axis=1) - 1) > 1e-6)))
        raise ValueError(
            f"confusion[{row}] sums to {confusion[row].sum():.4g} or has a negative entry; divide "
            "each row of counts by its sum"
        )
    given = labels.copy()
    for label in range(k):
        members = rng.permutation(np.flatnonzero(labels == label))
        exact = confusion[label] * len(members)
        counts = np.floor(exact).astype(int)
        most_cut = np.argsort(counts - exact, kind="stable")[: len(members) - counts.sum()]
        counts[most_cut] += 1
        given[members] = np.repeat(np.arange(k), counts)
    return given


def plant_noise(
    dataset: NoisyDataset,
    truth: Truth,
    *,
    seed: int = 0,
    label_noise: float | np.ndarray = 0.0,
    noise_kind: str = "symmetric",
    ood: Tensor | np.ndarray | Images | None = None,
    ood_share: float = 0.0,
    ood_labels: str | np.ndarray = "nearest class",
    ambiguous_share: float = 0.0,
) -> tuple[NoisyDataset, Truth]:
    """Add noise to the noisy split of any data set, and say so in the truth.

    First blends replace pairs of correct instances, then images of another data set come in, then
    labels change; the result is shuffled, and the strangers get their labels. The shares are of
    the *resulting* noisy split, up to rounding; label noise is a share of its correct instances.

    Args:
        dataset: only its noisy split changes.
        truth: about that split; only instances known to be correct are blended or relabelled.
        seed: decides all of it.
        label_noise: share of wrong labels, see `plant_label_noise`, or a confusion matrix (k, k),
            see `plant_confusion`.
        noise_kind: "symmetric" or "pair"; a matrix needs none.
        ood: images of no class, from another data set; brought to the size and the channels of
            the data set's own where those are a tensor.
        ood_share: of the resulting noisy split, in [0, 1).
        ood_labels: their given labels, see `label_strangers`. How plausible these are decides what
            a detector that reads the given label finds; nothing else depends on the choice.
        ambiguous_share: averages of two images of different classes under one of the two labels,
            as a share of the resulting noisy split, in [0, 1). Each uses up two images.

    Returns:
        The noisier data set and its truth. Made and added instances have ids above all others.

    Raises:
        ValueError: a share out of range, a bad matrix, ood_share without ood, more asked for than
            there is, or as `label_strangers`.
    """
    _check_plan(label_noise, ood_labels, ood_share=ood_share, ambiguous_share=ambiguous_share)
    rng = np.random.default_rng(seed)
    ood = torch.from_numpy(ood) if isinstance(ood, np.ndarray) else ood
    noisy, given = dataset.noisy, dataset.noisy.labels.numpy()
    correct = np.flatnonzero(truth.kinds == Kind.CORRECT)
    total = len(noisy) / (1 + ambiguous_share - ood_share)
    num_blends = _count_blends(ambiguous_share, total, len(correct))
    num_ood = _count_ood(ood_share, total, ood)
    used = correct[_pairs_of_two_classes(truth.labels[correct], num_blends, rng)]
    plain = np.setdiff1d(np.arange(len(noisy)), used)
    shown = used[np.arange(num_blends), rng.integers(0, 2, num_blends)]
    parts = [noisy.take(plain).inputs]
    if num_blends:
        parts.append(_blend(noisy.take(used[:, 0]).inputs, noisy.take(used[:, 1]).inputs))
    if num_ood:
        strangers = rng.choice(len(ood), num_ood, replace=False)
        parts.append(_like(noisy.inputs, as_images(ood).take(strangers)))
    labels = np.concatenate([given[plain], given[shown], rng.choice(given, num_ood)])
    made = np.repeat([Kind.AMBIGUOUS, Kind.OOD], [num_blends, num_ood])
    kinds = np.concatenate([truth.kinds[plain], made]).astype(np.int64)
    true = np.concatenate([truth.labels[plain], np.full(len(made), -1)])
    first_id = 1 + max(int(split.ids.max()) for split in dataset.splits().values() if len(split))
    ids = np.concatenate([noisy.ids.numpy()[plain], first_id + np.arange(len(made))])
    _plant_labels(labels, kinds, true, dataset.num_classes, label_noise, noise_kind, rng)
    order = rng.permutation(len(labels))
    inputs = torch.cat(parts) if isinstance(noisy.inputs, Tensor) else JoinedImages(parts)
    split = Split(inputs, torch.from_numpy(labels), torch.from_numpy(ids)).take(order)
    at_random = isinstance(ood_labels, str) and ood_labels == "random"  # as they were drawn above
    stated = ", and planted" + (STATED + "random" if num_ood and at_random else "")
    told = Truth(kinds[order], true[order], truth.source + stated, ids[order])
    made = replace(dataset, noisy=split), told
    added = told.ids >= first_id + num_blends
    return made if at_random or not num_ood else label_strangers(*made, ood_labels, added, seed)


OOD_LABELS = ("nearest class", "predictor", "random")
"""How strangers can get given labels, see `label_strangers`."""

STATED = "; strangers' labels: "
"""In a truth's source, before the choice."""

THUMBNAIL = (16, 16)
"""Height and width at which images on disk are compared."""


def label_strangers(
    dataset: NoisyDataset,
    truth: Truth,
    ood_labels: str | np.ndarray = "nearest class",
    rows: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[NoisyDataset, Truth]:
    """Give instances of no class other given labels, as plausible as one likes.

    A label that is drawn at random gives itself away: no prediction believes it. On the web, an
    image is found *because* its label fits it in some way.

    Args:
        dataset: only given labels of its noisy split change. "nearest class" and "predictor"
            compare inputs: pixels, those of images on disk as thumbnails; or features, of a data
            set that was featurized.
        truth: about the noisy split.
        ood_labels: "nearest class": the class of the nearest conforming instance (of those that
            the truth knows, by Euclidean distance). "predictor": drawn from the belief of a
            logistic regression that learned the test split, which no learner sees. "random":
            drawn in the proportions of the conforming instances' given labels. Or labels, one
            for each of the rows.
        rows: which instances of the noisy split, a boolean mask (N,); None for all that the truth
            knows to be non-conforming.
        seed: of what is drawn.

    Returns:
        The data set and its truth, whose source names the choice.

    Raises:
        ValueError: an unknown choice, labels out of range, nothing that conforms to compare with,
            or an empty test split.
    """
    rows = truth.is_nc if rows is None else rows
    given, rng = dataset.noisy.labels.numpy().copy(), np.random.default_rng([seed, 2])
    known = np.flatnonzero(truth.labels >= 0)
    if not isinstance(ood_labels, str):
        check_labels("ood_labels", ood_labels, dataset.num_classes, int(rows.sum()))
        choice, chosen = "stated", ood_labels
    else:
        check_choice("ood_labels", ood_labels, OOD_LABELS)
        if ood_labels == "predictor":
            dataset.require("test")
        elif len(known) == 0:
            raise ValueError(
                f"ood_labels is {ood_labels!r}, and no noisy instance is known to conform; pass "
                "labels, one for each stranger"
            )
        strangers, choice = dataset.noisy.take(np.flatnonzero(rows)).inputs, ood_labels
        if ood_labels == "random":
            chosen = rng.choice(given[known], len(strangers))
        elif ood_labels == "predictor":
            chosen = _believed(dataset.test, strangers, rng)
        else:
            chosen = truth.labels[known][_nearest(strangers, dataset.noisy.take(known).inputs)]
    given[rows] = chosen
    noisy = replace(dataset.noisy, labels=torch.from_numpy(given))
    source = truth.source.partition(STATED)[0] + STATED + choice
    return replace(dataset, noisy=noisy), replace(truth, source=source)


def _nearest(strangers: Tensor | Images, among: Tensor | Images) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=1).fit(_as_rows(among))
    return search.kneighbors(_as_rows(strangers), return_distance=False)[:, 0]


def _believed(learned: Split, strangers: Tensor | Images, rng: np.random.Generator) -> np.ndarray:
    """A class for each, drawn from what a classifier believes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = _as_rows(learned.inputs)
    penalised = LogisticRegression(C=10 / rows.shape[1], max_iter=300)  # the more, the wider
    model = make_pipeline(StandardScaler(), penalised).fit(rows, learned.labels.numpy())
    summed = model.predict_proba(_as_rows(strangers)).cumsum(axis=1)
    drawn = (summed <= rng.random((len(summed), 1)) * summed[:, -1:]).sum(axis=1)
    return model.classes_[drawn]


def _as_rows(inputs: Tensor | Images) -> np.ndarray:
    if isinstance(inputs, Images):
        every = (resize_image(inputs.read(row), THUMBNAIL) for row in range(len(inputs)))
        inputs = torch.stack(list(every))
    return inputs.flatten(1).float().numpy()


def _check_plan(
    label_noise: float | np.ndarray, ood_labels: str | np.ndarray, **shares: float
) -> None:
    if np.ndim(label_noise) == 0:
        check_rate("label_noise", label_noise)
    if isinstance(ood_labels, str):
        check_choice("ood_labels", ood_labels, OOD_LABELS)
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}; it is a share of the result, in [0, 1)")


def _count_blends(share: float, total: float, num_correct: int) -> int:
    count = round(share * total)
    if 2 * count > num_correct:
        raise ValueError(
            f"ambiguous_share is {share}: {count} blends need {2 * count} correct instances, and "
            f"there are {num_correct}; ask for fewer"
        )
    return count


def _count_ood(share: float, total: float, ood: Tensor | Images | None) -> int:
    if share and ood is None:
        raise ValueError(f"ood_share is {share}, but ood is None; pass the images to add")
    if not isinstance(ood, Tensor | Images | None):
        raise ValueError(
            f"ood is {reprlib.repr(ood)}, which holds no images; pass an array or tensor "
            '(m, c, h, w), or files: genkl.load_dataset("folder", folder=...)[0].noisy.inputs'
        )
    count = round(share * total)
    if share and count > len(ood):
        raise ValueError(
            f"ood_share is {share}: that is {count} images, and ood has {len(ood)}; ask for fewer, "
            "or pass more images"
        )
    return count


def _pairs_of_two_classes(labels: np.ndarray, num_pairs: int, rng: np.random.Generator):
    """Positions of pairs, (num_pairs, 2): none used twice, none of one class."""
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    few_enough = np.sort(np.argsort(order)[by_class[np.arange(len(order)) - starts < num_pairs]])
    chosen = order[few_enough[: 2 * num_pairs]]  # at most half of them of one class
    if len(chosen) < 2 * num_pairs:
        raise ValueError(
            f"ambiguous_share asks for {num_pairs} blends of two classes each, but too many "
            "correct instances are of one class; ask for fewer"
        )
    chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    return rng.permutation(np.stack([chosen[:num_pairs], chosen[num_pairs:]], axis=1))


def _blend(first: Tensor | Images, second: Tensor | Images) -> Tensor | Images:
    if isinstance(first, Images):
        return BlendedImages(first, second)
    mean = (first.float() + second.float()) / 2
    return mean.round().to(torch.uint8) if first.dtype == torch.uint8 else mean


def _like(inputs: Tensor | Images, images: Images) -> Tensor | Images:
    """Images as the data set has its own: files stay files, a tensor gets its size and channels."""
    if isinstance(inputs, Images):
        return images
    if inputs.ndim != 4:
        raise ValueError(
            f"the noisy inputs have shape {tuple(inputs.shape)}; images can only be added to "
            "images: plant noise before features are computed"
        )
    channels, *size = inputs.shape[1:]
    read = torch.stack([resize_image(images.read(row), size) for row in range(len(images))])
    if channels == 1:
        read = read.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
    return read if inputs.dtype == torch.uint8 else read.to(inputs.dtype) / 255


def _plant_labels(labels, kinds, true, k, noise, noise_kind, rng) -> None:
    """Change given labels of correct instances, in place, and their kinds with them."""
    correct = np.flatnonzero(kinds == Kind.CORRECT)
    if np.ndim(noise):
        if len(noise) != k:
            raise ValueError(f"label_noise has {len(noise)} rows; the data set has {k} classes")
        labels[correct] = plant_confusion(true[correct], noise, rng)
    else:
        labels[correct] = plant_label_noise(true[correct], k, noise, rng, noise_kind)
    kinds[correct[labels[correct] != true[correct]]] = Kind.MISLABELLED
