"""GenKL: in rounds, with another rule or none, and with the posterior as its target."""

from __future__ import annotations

import math

import numpy as np

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.method import RATES, TWO_RATES, Card, Method, Settings, number, with_targets
from genkl.learn import Lesson, divergence_rule, entropy_rule, flag_nothing
from genkl.losses import double_hot_loss
from genkl.posterior import estimate_transition, fit_pool, none_probs, pool, posterior_targets
from genkl.relabel import Role
from genkl.rule.divergence import uniform_like_vectors
from genkl.rule.identify import nc_score

CHECKS = {
    "max_flag_rate": number(lambda x: 0 < x < 1, "a share between 0 and 1", optional=True),
    "mixup_alpha": number(
        lambda x: 0 <= x < math.inf, "a number of at least 0; 0 is off", optional=True
    ),
}
"""Of settings that the configuration has, too: None leaves what it says."""

DIFFERS = "sets alpha by hand and trains whole networks; see chapter 9"


def known_before(work: Groundwork) -> tuple[np.ndarray, np.ndarray]:
    """What is known of the noisy instances without their labels: classes (N, k), "none" (N,).

    Two voices are pooled, and the critical alpha of the pool is held against validation's.
    """
    config, validation = work.setup.config, work.dataset.validation.labels.numpy()
    voices, held_out = work.voices()
    exponents = fit_pool(held_out, np.resize(validation, held_out.shape[1]))
    probs, conforming = pool(voices, exponents), pool(held_out, exponents)
    options = (config.num_vectors, config.sigma, config.vector_seed)
    vectors = uniform_like_vectors(probs.shape[1], *options)
    scores = (nc_score(part, config.beta, vectors) for part in (probs, conforming))
    return probs, none_probs(*scores)


def calibrated(work: Groundwork, settings: Settings) -> Lesson:
    """Targets that are the posterior of the class, by two voices, D and the given label."""
    probs, nones = known_before(work)
    given = work.dataset.noisy.labels.numpy()
    targets = posterior_targets(probs, given, estimate_transition(probs, given, nones), nones)
    examples = work.setup.clean + with_targets(work.setup.as_given, targets)
    kept = targets[np.arange(len(given)), given].mean()
    facts = {"label kept": float(kept), "taken for none": float(nones.mean())}
    return Lesson(examples, dict.fromkeys(Role, double_hot_loss), facts=facts)


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
    Method(
        "GenKL calibrated",
        "GenKL",
        "huang2023genkl",
        card=Card(r"$-\log\sum_j p_j t_j$, $t = P(c \mid x, y)$", "has double-hot targets"),
        grid=RATES,
        teach=calibrated,
    ),
)
