"""Settings for the embedded data sets; vary them with `dataclasses.replace`."""

from __future__ import annotations

from genkl.pipeline import GenKLConfig
from genkl.train import Phase

DIGITS = GenKLConfig(
    beta=0.03,
    max_flag_rate=0.05,
    omega=(1.0, 32.0, 1.0),
    mixup_alpha=0.5,
    pretrain=Phase(steps=200, learning_rate=0.05, batch_size=32),
    train=Phase(steps=400, learning_rate=0.05, batch_size=32),
    finetune=Phase(
        steps=100, learning_rate=1e-4, optimizer="adam", schedule="constant", batch_size=32
    ),
)
SOLAR_CELLS = GenKLConfig(
    beta=0.05,
    max_flag_rate=0.05,
    pretrain=Phase(steps=300, learning_rate=0.01, weight_decay=1e-2),
    train=Phase(steps=400, learning_rate=0.01, weight_decay=1e-2),
)
