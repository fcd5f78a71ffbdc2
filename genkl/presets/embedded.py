"""Presets of the embedded data sets, and of frozen features of any photographs.

Vary them with `dataclasses.replace`.

Weights, mixup, ensemble sizes and the uniform-like vectors are those that the paper uses for
Clothing1M. Steps and learning rates are shared by all methods that the book compares; they were
looked for on the validation splits of seeds 100 to 102, which no chapter uses.
"""

from __future__ import annotations

from dataclasses import replace

from genkl.learn import GenKLConfig, Phase

DIGITS = GenKLConfig(
    beta=0.03,
    omega=(1.0, 32.0, 1.0),
    mixup_alpha=0.5,
    pretrain=Phase(steps=200, learning_rate=0.05, batch_size=32),
    train=Phase(steps=300, learning_rate=0.05, batch_size=32),
    finetune=Phase(
        steps=100, learning_rate=1e-4, optimizer="adam", schedule="constant", batch_size=32
    ),
)
"""Digits, k = 8, for the small CNN. A round takes seconds on a laptop."""

SOLAR_CELLS = replace(
    DIGITS,
    beta=0.05,
    pretrain=Phase(steps=300, learning_rate=0.003, weight_decay=1e-2, batch_size=32),
    train=Phase(steps=400, learning_rate=0.01, weight_decay=1e-2, batch_size=32),
)
"""Solar cells, k = 4, for linear heads on frozen features. Once those are cached, a round takes
seconds."""

PHOTOGRAPHS = replace(SOLAR_CELLS, beta=0.02)
"""Linear heads on frozen features of photographs, for fewer than 50 classes. These are the
settings of the solar cells with a smaller beta."""
