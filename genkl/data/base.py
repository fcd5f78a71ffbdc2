"""Splits, data sets and the truth about them: one interface for every data set.

A loader returns ``(NoisyDataset, Truth)``. Training code takes the first and never sees the
second; evaluation code holds a run's masks against it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from genkl.checks import check_labels
from genkl.data.images import Images, positions

SPLITS = ("clean", "noisy", "validation", "test")


@dataclass(frozen=True)
class Split:
    """N instances.

    Attributes:
        inputs: what the model sees: a tensor of shape (N, ...), float32 (or uint8 for images), or
            `Images` that are read and decoded when they are needed.
        labels: shape (N,), int64; verified labels, or given ones in the noisy split.
        ids: shape (N,), int64; the instance's index in the source data set, stable over seeds
            (made instances, such as blends, get ids of their own, above the source's).
    """

    inputs: Tensor | Images
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = tuple(getattr(self.inputs, "shape", ()))
        return f"Split({len(self)} instances, {f'inputs {shape}' if shape else repr(self.inputs)})"

    def take(self, rows: np.ndarray | Tensor) -> Split:
        """The instances at these positions, in this order."""
        rows = torch.from_numpy(positions(rows))
        inputs = self.inputs[rows] if isinstance(self.inputs, Tensor) else self.inputs.take(rows)
        return Split(inputs, self.labels[rows], self.ids[rows])


@dataclass(frozen=True)
class NoisyDataset:
    """What a learner may use: a noisy split, a small clean one, validation and test.

    A split may be empty where a data set has none (mini WebVision has no clean one, your own
    folder perhaps only a noisy one); what needs it says so, see `require`.

    Attributes:
        name: as `load_dataset` knows it.
        class_names: k names.
        clean: verified labels, for pre-training, the clean loss and fine-tuning.
        noisy: given labels, some wrong; some instances fit no class. Never empty.
        validation: chooses rounds, steps and thresholds; verified labels, unless the loader says
            otherwise.
        test: verified labels; reported only.
        more_tests: further test sets by name, such as the ILSVRC12 validation images for mini
            WebVision; their ids count separately.

    Raises:
        ValueError: an empty noisy split, lengths that differ within a split, labels out of range,
            or an id that is in two splits.
    """

    name: str
    class_names: tuple[str, ...]
    clean: Split
    noisy: Split
    validation: Split
    test: Split
    more_tests: Mapping[str, Split] = field(default_factory=dict)
    features: str | None = None

    def __post_init__(self) -> None:
        if len(self.noisy) == 0:
            raise ValueError(f"the noisy split of {self.name} is empty; give it instances")
        for name, split in {**self.splits(), **self.more_tests}.items():
            if not len(split.inputs) == len(split.labels) == len(split.ids):
                raise ValueError(
                    f"the {name} split of {self.name} has {len(split.inputs)} inputs, "
                    f"{len(split.labels)} labels and {len(split.ids)} ids; pass as many of each"
                )
            check_labels(f"{name}.labels", split.labels, self.num_classes)
        self._refuse_shared_instances()

    def __repr__(self) -> str:
        sizes = {name: len(split) for name, split in {**self.splits(), **self.more_tests}.items()}
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        return f"NoisyDataset({self.name!r}, {self.num_classes} classes; {told})"

    def _refuse_shared_instances(self) -> None:
        ids = torch.cat([split.ids for split in self.splits().values()]).numpy()
        order = np.argsort(ids, kind="stable")
        again = np.flatnonzero(ids[order][1:] == ids[order][:-1])
        if len(again) == 0:
            return
        first, second = order[again[0]], order[again[0] + 1]
        ends = np.cumsum([len(split) for split in self.splits().values()])
        places = [SPLITS[int(np.searchsorted(ends, at, side="right"))] for at in (first, second)]
        raise ValueError(
            f"instance {ids[first]} of {self.name} is in {places[0]} and in {places[1]}; "
            "splits must not share instances"
        )

    @property
    def num_classes(self) -> int:
        """k."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input.

        Raises:
            TypeError: images of many sizes, which are not tensors yet.
        """
        if isinstance(self.noisy.inputs, Tensor):
            return tuple(self.noisy.inputs.shape[1:])
        raise TypeError(
            f"the inputs of {self.name} are images on disk, without a common shape; turn them "
            "into features first: genkl.featurize(dataset)"
        )

    def splits(self) -> dict[str, Split]:
        """The four splits by name."""
        return {name: getattr(self, name) for name in SPLITS}

    def require(self, *names: str) -> None:
        """Refuse to go on without these splits.

        Raises:
            ValueError: one of them is empty; the message says what it is needed for.
        """
        needed_for = {
            "clean": "verified labels to pre-train and to fine-tune on",
            "validation": "verified labels to choose steps, rounds and thresholds with",
            "test": "verified labels to report accuracy on",
        }
        for name in names:
            if len(getattr(self, name)) == 0:
                raise ValueError(
                    f"the {name} split of {self.name} is empty, and this needs "
                    f"{needed_for[name]}; verify some instances, or load with other shares"
                )

    def map_inputs(self, transform: Callable[[Tensor], Tensor]) -> NoisyDataset:
        """The same data set with every split's inputs replaced by ``transform(inputs)``."""
        return self.map_splits(lambda split: replace(split, inputs=transform(split.inputs)))

    def map_splits(self, change: Callable[[Split], Split]) -> NoisyDataset:
        """The same data set with every split, further test sets included, replaced."""
        changed = {name: change(split) for name, split in self.splits().items()}
        more = {name: change(split) for name, split in self.more_tests.items()}
        return replace(self, **changed, more_tests=more)


class Kind(IntEnum):
    """What a noisy instance really is. AMBIGUOUS, OOD and NC are non-conforming."""

    UNKNOWN = -1
    """Nobody looked."""
    CORRECT = 0
    """The given label is right."""
    MISLABELLED = 1
    """Another class is right."""
    AMBIGUOUS = 2
    """Two classes fit, or it cannot be told."""
    OOD = 3
    """No class fits."""
    NC = 4
    """Non-conforming; which of the two, nobody said."""
    WRONG = 5
    """The given label is wrong; whether another class is right, nobody said."""


NON_CONFORMING = (Kind.AMBIGUOUS, Kind.OOD, Kind.NC)


@dataclass(frozen=True)
class Truth:
    """What is known about the noisy split, for evaluation only.

    Attributes:
        kinds: shape (N,), integers, see `Kind`.
        labels: shape (N,), the true class; -1 where no single class is true or nobody knows.
        source: who says so, in words.
        ids: shape (N,), the instances' ids; None where the order says it all.

    Raises:
        ValueError: arrays of different lengths.
    """

    kinds: np.ndarray
    labels: np.ndarray
    source: str
    ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.kinds), len(self.labels)}
        if self.ids is not None:
            lengths.add(len(self.ids))
        if len(lengths) > 1:
            raise ValueError(
                f"truth has arrays of lengths {sorted(lengths)}; pass one entry per noisy instance"
            )

    def __len__(self) -> int:
        return len(self.kinds)

    def __repr__(self) -> str:
        return f"Truth({len(self)} instances, known of {self.is_known.sum()}; {self.source!r})"

    @property
    def is_nc(self) -> np.ndarray:
        """Boolean mask of the instances known to be non-conforming, shape (N,)."""
        return np.isin(self.kinds, NON_CONFORMING)

    @property
    def is_known(self) -> np.ndarray:
        """Boolean mask of the instances of which somebody said what they are, shape (N,)."""
        return self.kinds != Kind.UNKNOWN

    def match(self, split: Split) -> Truth:
        """The truth about these instances, in their order; needed after instances were dropped.

        Raises:
            ValueError: the truth holds no ids, or none for one of the instances.
        """
        if self.ids is None:
            raise ValueError("this truth holds no ids; build it with ids= to match it to a split")
        order = np.argsort(self.ids, kind="stable")
        wanted = split.ids.numpy()
        at = np.minimum(np.searchsorted(self.ids[order], wanted), len(order) - 1)
        rows = order[at]
        if len(wanted) and (self.ids[rows] != wanted).any():
            missing = wanted[self.ids[rows] != wanted][0]
            raise ValueError(f"nothing is known about instance {missing}; pass the noisy split")
        return Truth(self.kinds[rows], self.labels[rows], self.source, self.ids[rows])


def make_split(inputs: np.ndarray | Tensor | Images, labels: np.ndarray, ids: np.ndarray) -> Split:
    """A split from arrays; inputs become float32 (uint8 and `Images` stay), the rest int64."""
    if not isinstance(inputs, Images):
        inputs = torch.as_tensor(inputs)
        if inputs.dtype != torch.uint8:
            inputs = inputs.float()
    return Split(
        inputs,
        torch.from_numpy(np.array(labels, dtype=np.int64)),
        torch.from_numpy(np.array(ids, dtype=np.int64)),
    )


def make_dataset(
    name: str,
    class_names: Sequence[str],
    read: Callable[[np.ndarray], np.ndarray | Tensor | Images],
    rows: Mapping[str, np.ndarray],
    given: np.ndarray,
    truth: Truth,
) -> tuple[NoisyDataset, Truth]:
    """A data set, and the truth about its noisy split, from N instances and who is in which split.

    Args:
        name: of the data set.
        class_names: k names.
        read: the inputs of these rows, such as ``images.__getitem__`` or ``files.take``.
        rows: of the splits, by name, shape (n,) each; a split that is not named is empty.
        given: labels of the noisy split, shape (N,).
        truth: about all N; its labels are those of the other splits. Without ids, rows are ids.

    Returns:
        The data set and the truth.
    """
    ids = np.arange(len(given)) if truth.ids is None else truth.ids
    splits = {}
    for split in SPLITS:
        chosen = rows.get(split, np.empty(0, np.int64))
        labels = (given if split == "noisy" else truth.labels)[chosen]
        splits[split] = make_split(read(chosen), labels, ids[chosen])
    noisy = rows["noisy"]
    kinds = truth.kinds[noisy].astype(np.int64)
    told = Truth(kinds, truth.labels[noisy], truth.source, ids[noisy])
    return NoisyDataset(name=name, class_names=tuple(class_names), **splits), told


def compare_labels(given: np.ndarray, verified: np.ndarray, is_nc: np.ndarray) -> np.ndarray:
    """What instances are by their given and their verified labels.

    Args:
        given: shape (N,).
        verified: shape (N,), -1 where nobody looked.
        is_nc: shape (N,), where somebody looked and no class fits; it has the last word.

    Returns:
        NC, CORRECT, MISLABELLED or UNKNOWN, see `Kind`; shape (N,).
    """
    right = np.where(given == verified, Kind.CORRECT, Kind.MISLABELLED)
    return np.where(is_nc, Kind.NC, np.where(verified >= 0, right, Kind.UNKNOWN))
