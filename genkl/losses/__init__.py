"""What does a prediction cost? Row losses, mixup, and the weighted sum of the three roles' means.

Every row loss has one signature, ``(logits (B, k), targets (B, k)) -> (B,)``, so an ablation
replaces an entry of `PAPER_LOSSES` and nothing else, or all of them (`losses_of`).
"""

from genkl.losses.descent import descend_logits
from genkl.losses.mixing import Mixing, mixup
from genkl.losses.rows import (
    ROW_LOSSES,
    RowLoss,
    double_hot_loss,
    generalized_cross_entropy,
    hard_bootstrapping,
    kl_loss,
    mean_absolute_error,
    mean_squared_error,
    on_normalized,
    soft_bootstrapping,
    soft_cross_entropy,
    symmetric_cross_entropy,
)
from genkl.losses.terms import PAPER_LOSSES, losses_of, three_term_loss

__all__ = [
    "PAPER_LOSSES",
    "ROW_LOSSES",
    "Mixing",
    "RowLoss",
    "descend_logits",
    "double_hot_loss",
    "generalized_cross_entropy",
    "hard_bootstrapping",
    "kl_loss",
    "losses_of",
    "mean_absolute_error",
    "mean_squared_error",
    "mixup",
    "on_normalized",
    "soft_bootstrapping",
    "soft_cross_entropy",
    "symmetric_cross_entropy",
    "three_term_loss",
]
