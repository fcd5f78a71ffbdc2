"""Digits: 1,797 real 8x8 digits shipped with scikit-learn, with planted noise of every kind.

Digits 0-7 are the known classes. The noisy split holds known digits with a share of wrong labels
(ID noise), 8s and 9s under random known labels (OOD), and averages of two known digits under one
of their two labels (ambiguous).
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits as sklearn_digits

from genkl.data.base import Kind, NoisyDataset, Truth, make_dataset
from genkl.data.planting import STATED, blend_pairs, check_rate, plant_label_noise
from genkl.data.registry import DIGITS
from genkl.data.splitting import check_counts, draw_splits

NUM_KNOWN = 8


def load_digits(
    seed: int = 0,
    *,
    label_noise: float = 0.4,
    noise_kind: str = "symmetric",
    clean_per_class: int = 8,
    validation_per_class: int = 25,
    test_per_class: int = 50,
    num_ambiguous: int = 80,
    num_ood: int = 160,
) -> tuple[NoisyDataset, Truth]:
    """Load the digits with planted noise.

    Args:
        seed: decides splits and noise.
        label_noise: share of wrong labels among the known digits of the noisy split.
        noise_kind: "symmetric" or "pair", see `plant_label_noise`.
        clean_per_class: verified training images of each of the 8 classes.
        validation_per_class: validation images of each class.
        test_per_class: test images of each class.
        num_ambiguous: blends of two known digits; each consumes two images that appear nowhere
            else.
        num_ood: 8s and 9s, at most 354.

    Returns:
        The data set, inputs of shape (N, 1, 8, 8) in [0, 1], and the truth about its noisy split.

    Raises:
        ValueError: label_noise outside [0, 1], or more instances asked for than there are.
    """
    check_rate("label_noise", label_noise)
    per_class = check_counts(
        clean=clean_per_class, validation=validation_per_class, test=test_per_class
    )
    source = sklearn_digits()
    images = (source.images / 16.0).astype(np.float32)[:, None]
    digits = source.target.astype(np.int64)
    rng = np.random.default_rng(seed)
    known, unknown = np.flatnonzero(digits < NUM_KNOWN), np.flatnonzero(digits >= NUM_KNOWN)
    rows, left = draw_splits(digits, known, per_class, rng)
    check_enough(num_ood, len(unknown), num_ambiguous, len(left))
    ood = rng.choice(unknown, num_ood, replace=False)
    to_blend = rng.choice(left, 2 * num_ambiguous, replace=False)
    blends, blend_classes = blend_pairs(images[to_blend], digits[to_blend], rng)
    plain = np.setdiff1d(left, to_blend)

    # The blends come after the images, under ids of their own.
    blended = len(digits) + np.arange(len(blends))
    true = np.full(len(digits) + len(blends), -1)
    true[known] = digits[known]
    given = true.copy()
    given[plain] = plant_label_noise(digits[plain], NUM_KNOWN, label_noise, rng, noise_kind)
    given[blended] = blend_classes[np.arange(len(blends)), rng.integers(0, 2, len(blends))]
    given[ood] = rng.integers(0, NUM_KNOWN, num_ood)
    kinds = np.where(given == true, Kind.CORRECT, Kind.MISLABELLED)
    kinds[blended], kinds[ood] = Kind.AMBIGUOUS, Kind.OOD
    rows["noisy"] = rng.permutation(np.concatenate([plain, blended, ood]))
    names = [str(digit) for digit in range(NUM_KNOWN)]
    images = np.concatenate([images, blends])
    truth = Truth(kinds, true, f"planted{STATED}random")
    return make_dataset(DIGITS.name, names, images.__getitem__, rows, given, truth)


def check_enough(num_ood: int, unknown: int, num_ambiguous: int, left: int) -> None:
    """Refuse more images of no class, or more blends, than there are digits for."""
    if not 0 <= num_ood <= unknown:
        raise ValueError(f"num_ood is {num_ood}; there are 0 to {unknown} images of 8 and 9")
    if not 0 <= 2 * num_ambiguous < left:
        raise ValueError(
            f"num_ambiguous is {num_ambiguous}; {left} known digits are left for the noisy split, "
            f"so at most {(left - 1) // 2} pairs can be blended"
        )
