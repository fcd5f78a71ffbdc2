"""The record of thresholds, and the withdrawn choice of beta."""

import numpy as np
import pytest

from benchmarks import thresholds
from benchmarks.choosing import choose_alpha_beta, default_betas
from benchmarks.detection import Judged
from genkl import Evidence, Kind, nc_score, threshold_for_budget, uniform_like_vectors


def shifted(seed=0, count=3000):
    """Conforming predictions, surer of class 0, which is rarer among the noisy ones."""
    rng = np.random.default_rng(seed)

    def part(shares, size, kinds):
        labels = rng.choice(2, size=size, p=shares)
        peak = np.where(labels == 0, 0.99, 0.7) - rng.uniform(0, 0.25, size)
        peak[kinds == Kind.OOD] = rng.uniform(0.34, 0.5, (kinds == Kind.OOD).sum())
        probs = np.repeat(((1 - peak) / 2)[:, None], 3, axis=1)
        probs[np.arange(size), labels] = peak
        return Evidence(pred_probs=probs, given_labels=labels)

    known = part([0.8, 0.2], 400, np.full(400, Kind.CORRECT))
    kinds = np.where(rng.random(count) < 0.1, Kind.OOD, Kind.CORRECT)
    noisy = part([0.2, 0.8], count, kinds)
    evidence = Evidence(noisy.pred_probs, given_labels=noisy.given_labels, reference=known)
    groups = np.arange(count + len(known.given_labels))
    return Judged(seed, evidence, kinds, groups, 1.0)


def test_promises_show_the_shift_and_who_minds():
    rows = {(r["score"], r["threshold"]): r for r in thresholds.measure_promises(shifted())}
    assert {score for score, _ in rows} == set(thresholds.SCORES)
    broken = rows["entropy", "plain"]["false_flags"]
    assert broken > 2 * thresholds.BUDGET
    for way in ("class weights", "each predicted class", "any class"):
        assert rows["entropy", way]["false_flags"] < 0.07
    assert rows["entropy", "plain"]["recall"] > rows["entropy", "any class"]["recall"] > 0.5


def test_what_a_choice_of_beta_could_gain_is_told_from_what_it_gains():
    row = thresholds.measure_choice(shifted())
    assert row["held_out"] == 400
    assert row["recall_best"] >= max(row["recall_chosen"], row["recall_lot"])
    assert 1 <= row["betas_picked"] <= 10
    assert row["spread_of_halves"] > 0


def test_alpha_is_set_by_the_half_that_did_not_choose_beta():
    rng = np.random.default_rng(0)
    conforming, vectors = rng.dirichlet(np.full(6, 0.3), 101), uniform_like_vectors(6)
    noisy = rng.dirichlet(np.ones(6), 200)
    alpha, beta = choose_alpha_beta(noisy, conforming, 0.05, seed=4)
    choosing, setting = np.split(conforming[np.random.default_rng(4).permutation(101)], [50])
    assert alpha == threshold_for_budget(nc_score(setting, beta, vectors), 0.05)

    def flagged(b):
        limit = threshold_for_budget(nc_score(choosing, b, vectors), 0.05)
        return (nc_score(noisy, b, vectors) >= limit).mean()

    assert flagged(beta) == pytest.approx(max(map(flagged, default_betas(6))))
