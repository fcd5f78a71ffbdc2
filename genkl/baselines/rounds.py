"""Methods that learn in GenKL's rounds: GenKL, and with another rule or none."""

from __future__ import annotations

import math

from genkl.baselines.method import TWO_RATES, Card, Method, number
from genkl.learn import divergence_rule, entropy_rule, flag_nothing

CHECKS = {
    "max_flag_rate": number(lambda x: 0 < x < 1, "a share between 0 and 1", optional=True),
    "mixup_alpha": number(
        lambda x: 0 <= x < math.inf, "a number of at least 0; 0 is off", optional=True
    ),
}
"""Of settings that the configuration has, too: None leaves what it says."""

DIFFERS = "sets alpha by hand and trains whole networks; see chapter 9"

METHODS = (
    Method(
        "GenKL",
        "GenKL",
        "huang2023genkl",
        {"max_flag_rate": None, "mixup_alpha": None},
        {"max_flag_rate": (None, 0.15), **TWO_RATES},
        card=Card(r"$-\log\sum_j p_j t_j$, $t = w_y e_y + m e_c$, $u$ where $D \ge 0$", DIFFERS),
        identify=divergence_rule,
        checks=CHECKS,
    ),
    Method(
        "GenKL, no NC stage",
        "GenKL",
        "huang2023genkl",
        {"mixup_alpha": None},
        {"mixup_alpha": (None, 0.0), **TWO_RATES},
        card=Card(r"$-\log\sum_j p_j t_j$, $t = w_y e_y + m e_c$ for all", DIFFERS),
        identify=lambda config: flag_nothing,
        checks=CHECKS,
    ),
    Method(
        "GenKL, entropy",
        "GenKL",
        "huang2023genkl",
        {"max_flag_rate": None, "mixup_alpha": None},
        {"max_flag_rate": (None, 0.15), **TWO_RATES},
        card=Card(r"the same, $u$ where $H(q)$ is above a budget", DIFFERS),
        identify=lambda config: entropy_rule(config.max_flag_rate),
        checks=CHECKS,
    ),
)
