"""Methods that learn in GenKL's rounds: GenKL, and with another rule or none."""

from __future__ import annotations

import math

from genkl.baselines.method import TWO_RATES, Method, number
from genkl.learn import divergence_rule, entropy_rule, flag_nothing

CHECKS = {
    "max_flag_rate": number(lambda x: 0 < x < 1, "a share between 0 and 1", optional=True),
    "mixup_alpha": number(
        lambda x: 0 <= x < math.inf, "a number of at least 0; 0 is off", optional=True
    ),
}
"""Of settings that the configuration has, too: None leaves what it says."""

METHODS = (
    Method(
        "GenKL",
        "GenKL",
        "huang2023genkl",
        {"max_flag_rate": None, "mixup_alpha": None},
        {"max_flag_rate": (None, 0.15), **TWO_RATES},
        identify=divergence_rule,
        checks=CHECKS,
    ),
    Method(
        "GenKL, no NC stage",
        "GenKL",
        "huang2023genkl",
        {"mixup_alpha": None},
        {"mixup_alpha": (None, 0.0), **TWO_RATES},
        identify=lambda config: flag_nothing,
        checks=CHECKS,
    ),
    Method(
        "GenKL, entropy",
        "GenKL",
        "huang2023genkl",
        {"max_flag_rate": None, "mixup_alpha": None},
        {"max_flag_rate": (None, 0.15), **TWO_RATES},
        identify=lambda config: entropy_rule(config.max_flag_rate),
        checks=CHECKS,
    ),
)
