"""Configuration: every setting of the method, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass

from genkl.checks import check_positive, check_whole
from genkl.data.transforms import Transforms
from genkl.learn.phase import Phase


@dataclass(frozen=True, kw_only=True)
class GenKLConfig:
    """Every setting of the method. Make variations with `dataclasses.replace`.

    Attributes:
        alpha: threshold on the critical alpha; None chooses it in every round from validation
            scores, see max_flag_rate.
        max_flag_rate: where alpha is None, the share of conforming instances that may be
            flagged (`threshold_for_budget`).
        beta: in [0, 1/k).
        sigma: spread of the uniform-like vectors.
        num_vectors: n, how many of them.
        vector_seed: their seed.
        omega: weights of the clean, non-NC and NC losses, before division by the batch size.
        mixup_alpha: of the three-term training; 0 is off.
        first_ensemble: models pre-trained on the clean set, averaged in round 1 (paper: 5).
        ensemble: models trained per round and averaged for the next (paper: 3).
        max_rounds: at most this many rounds; fewer when validation stops improving.
        pretrain: phase on the clean set.
        train: phase with the three-term loss.
        finetune: phase on the clean set afterwards.
        clean_threshold: where nothing is verified, the probability of its given label from which
            on an instance counts as clean in a step; None needs a clean split.
        train_transforms: how images are prepared to be learned from, see `build_transform`; for
            networks that learn from images on disk.
        test_transforms: the same for prediction, without randomness.

    Raises:
        ValueError: a setting out of range; the message names it and the remedy.
    """

    alpha: float | None = None
    max_flag_rate: float = 0.05
    beta: float = 0.03
    sigma: float = 0.05
    num_vectors: int = 20
    vector_seed: int = 0
    omega: tuple[float, float, float] = (1.0, 32.0, 1.0)
    mixup_alpha: float = 0.5
    first_ensemble: int = 5
    ensemble: int = 3
    max_rounds: int = 3
    pretrain: Phase = Phase(steps=300, learning_rate=0.05)
    train: Phase = Phase(steps=600, learning_rate=0.05)
    finetune: Phase = Phase(steps=100, learning_rate=1e-4, optimizer="adam", schedule="constant")
    clean_threshold: float | None = None
    train_transforms: Transforms = ()
    test_transforms: Transforms = ()

    def __post_init__(self) -> None:
        if self.alpha is not None:
            check_positive("alpha", self.alpha, "; use None to choose it on validation data")
        if not 0 < self.max_flag_rate < 1:
            raise ValueError(
                f"max_flag_rate is {self.max_flag_rate}; state a share between 0 and 1"
            )
        if not self.beta >= 0:
            raise ValueError(f"beta is {self.beta}; it must be 0 or greater")
        if not self.sigma >= 0:
            raise ValueError(f"sigma is {self.sigma}; it must be 0 or greater")
        if len(self.omega) != 3 or any(w < 0 for w in self.omega) or not any(self.omega):
            raise ValueError(
                f"omega is {self.omega}; pass three weights (clean, non-NC, NC), 0 or greater, "
                "not all 0"
            )
        if self.mixup_alpha < 0:
            raise ValueError(f"mixup_alpha is {self.mixup_alpha}; use 0 to switch mixup off")
        if self.clean_threshold is not None and not 0 < self.clean_threshold <= 1:
            raise ValueError(
                f"clean_threshold is {self.clean_threshold}; state a probability above 0, or None "
                "where there is a clean split"
            )
        if bool(self.train_transforms) != bool(self.test_transforms):
            raise ValueError(
                "train_transforms and test_transforms belong together; state both, or neither"
            )
        for name in ("num_vectors", "first_ensemble", "ensemble", "max_rounds"):
            check_whole(name, getattr(self, name), 1)

    @property
    def weights(self) -> tuple[float, float, float]:
        r"""Multipliers of the three mean losses, :math:`\omega_i / \text{batch size}`."""
        clean, non_nc, nc = (w / self.train.batch_size for w in self.omega)
        return clean, non_nc, nc
