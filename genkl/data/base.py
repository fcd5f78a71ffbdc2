"""One interface for every data set: four splits to learn from, and the truth kept apart.

A loader returns ``(NoisyDataset, Truth)``. Training code takes the first and never sees the
second; evaluation code holds a run's masks against it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from genkl.checks import check_labels


@dataclass(frozen=True)
class Split:
    """N instances.

    Attributes:
        inputs: shape (N, ...), float32, what the model sees.
        labels: shape (N,), int64; verified labels, or given ones in the noisy split.
        ids: shape (N,), int64; the instance's index in the source data set, stable over seeds
            (blended instances get ids of their own, above the source's).
    """

    inputs: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class NoisyDataset:
    """What a learner may use: a noisy split, a small clean one, validation and test.

    Attributes:
        name: as `load_dataset` knows it.
        class_names: k names.
        clean: verified labels, for pre-training, the clean loss and fine-tuning.
        noisy: given labels, some wrong; some instances fit no class.
        validation: verified labels; chooses rounds, steps and thresholds.
        test: verified labels; reported only.

    Raises:
        ValueError: an empty split, lengths that differ within a split, labels out of range, or
            an id that is in two splits.
    """

    name: str
    class_names: tuple[str, ...]
    clean: Split
    noisy: Split
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for name, split in self.splits().items():
            if len(split) == 0:
                raise ValueError(f"the {name} split of {self.name} is empty; give it instances")
            if not len(split.inputs) == len(split.labels) == len(split.ids):
                raise ValueError(
                    f"the {name} split of {self.name} has {len(split.inputs)} inputs, "
                    f"{len(split.labels)} labels and {len(split.ids)} ids; pass as many of each"
                )
            check_labels(f"{name}.labels", split.labels, self.num_classes)
            for instance in split.ids.tolist():
                if instance in seen:
                    raise ValueError(
                        f"instance {instance} of {self.name} is in {seen[instance]} and in {name}; "
                        "splits must not share instances"
                    )
                seen[instance] = name

    @property
    def num_classes(self) -> int:
        """k."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.noisy.inputs.shape[1:])

    def splits(self) -> dict[str, Split]:
        """The four splits by name."""
        return {s: getattr(self, s) for s in ("clean", "noisy", "validation", "test")}

    def map_inputs(self, transform: Callable[[Tensor], Tensor]) -> NoisyDataset:
        """The same data set with every split's inputs replaced by ``transform(inputs)``."""
        changed = {
            name: replace(split, inputs=transform(split.inputs))
            for name, split in self.splits().items()
        }
        return replace(self, **changed)


class Kind(IntEnum):
    """What a noisy instance really is. AMBIGUOUS and OOD together are non-conforming."""

    CORRECT = 0
    MISLABELLED = 1
    AMBIGUOUS = 2
    OOD = 3


@dataclass(frozen=True)
class Truth:
    """What is known about the noisy split, for evaluation only.

    Attributes:
        kinds: shape (N,), integers, see `Kind`.
        labels: shape (N,), the true class; -1 where no single class is true.
        source: who says so, in words.
    """

    kinds: np.ndarray
    labels: np.ndarray
    source: str

    @property
    def is_nc(self) -> np.ndarray:
        """Boolean mask of the non-conforming instances, shape (N,)."""
        return self.kinds >= Kind.AMBIGUOUS


def take_stratified(
    labels: np.ndarray, available: np.ndarray, per_class: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the same number of instances of every class, without replacement.

    Args:
        labels: shape (N,).
        available: indices that may be drawn, shape (A,).
        per_class: instances per class.
        rng: source of randomness.

    Returns:
        Indices into labels, sorted.

    Raises:
        ValueError: a class has too few instances left.
    """
    chosen = []
    for label in np.unique(labels[available]):
        members = available[labels[available] == label]
        if len(members) < per_class:
            raise ValueError(
                f"class {label} has {len(members)} instances left and {per_class} are asked for; "
                "ask for fewer clean, validation or test instances"
            )
        chosen.append(rng.choice(members, per_class, replace=False))
    return np.sort(np.concatenate(chosen))


def make_split(inputs: np.ndarray | Tensor, labels: np.ndarray, ids: np.ndarray) -> Split:
    """A split from arrays: inputs become float32 (uint8 stays), labels and ids int64."""
    inputs = torch.as_tensor(inputs)
    if inputs.dtype != torch.uint8:
        inputs = inputs.float()
    return Split(
        inputs,
        torch.from_numpy(np.array(labels, dtype=np.int64)),
        torch.from_numpy(np.array(ids, dtype=np.int64)),
    )
