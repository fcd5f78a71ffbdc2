"""Detectors: each against its source's definition, then what it may see and what it finds."""

import dataclasses
import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.special import softmax
from sklearn.mixture import GaussianMixture

from benchmarks.combine import combination
from genkl import identify_nc, nc_score, neighbor_distance, threshold_for_budget
from genkl import uniform_like_vectors as draw
from genkl.detectors import (
    DETECTORS,
    FAMILIES,
    Detector,
    Evidence,
    cleanlab_detector,
    energy_detector,
    genkl_detector,
    jo_src_detector,
    knn_detector,
    vim_detector,
)
from genkl.detectors.evidence import ARRAYS, import_extra
from genkl.detectors.features import principal_dimensions
from genkl.evaluate import auroc

ROOT = Path(__file__).parents[2]
every_detector = pytest.mark.parametrize("name", list(DETECTORS))


def random_evidence(seed=0, count=60, k=5, models=3, width=12, reference=True):
    """Everything a detector may ask for, without structure."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(models, count, k))
    return Evidence(
        pred_probs=softmax(logits, axis=-1).mean(axis=0),
        member_logits=logits,
        features=rng.normal(size=(count, width)),
        given_labels=rng.integers(0, k, count),
        view_probs=softmax(logits + rng.normal(size=logits.shape), axis=-1).mean(axis=0),
        training_logits=rng.normal(size=(4, count, k)),
        head=np.random.default_rng(50).normal(size=(k, width + 1)),
        reference=random_evidence(seed + 1, 40, k, models, width, False) if reference else None,
    )


def changed(evidence, **fields):
    return dataclasses.replace(evidence, **fields)


SOME = random_evidence()
Q, Y, Z, X, V = (
    SOME.pred_probs,
    SOME.given_labels,
    SOME.member_logits,
    SOME.features,
    SOME.view_probs,
)
REFERENCE = SOME.reference


def score(name, evidence=SOME):
    return DETECTORS[name].score(evidence)


# -- against the definitions ----------------------------------------------------------------------


def test_genkl_is_the_critical_alpha_and_flags_as_published():
    detector = genkl_detector(0.1, sigma=0.03, num_vectors=7, seed=3, alpha=0.9)
    vectors = draw(5, 7, 0.03, 3)
    assert np.array_equal(detector.score(SOME), nc_score(Q, 0.1, vectors))
    flagged = detector.score(SOME) >= detector.published_threshold(SOME)
    assert np.array_equal(flagged, identify_nc(Q, 0.9, 0.1, vectors))
    assert 0 < flagged.sum() < len(flagged)
    assert np.array_equal(score("GenKL"), nc_score(Q, 0.1, draw(5)))  # beta .5/k
    assert DETECTORS["GenKL"].threshold == 1.05
    closed = nc_score(Q, 0.1, draw(5), permutation_invariant=True)
    assert np.array_equal(score("GenKL invariant"), closed)
    assert DETECTORS["GenKL invariant"].threshold is None


def test_softmax_scores_by_hand():
    for row, q in enumerate(Q):
        ordered = sorted(q)
        expected = -sum(x * math.log(x) for x in q) / math.log(5)
        assert score("entropy")[row] == pytest.approx(expected)
        assert score("max softmax")[row] == pytest.approx(1 - ordered[-1])
        assert score("margin")[row] == pytest.approx(1 - ordered[-1] + ordered[-2])


def test_logit_scores_by_hand():
    for row in range(len(Q)):
        mean = [sum(Z[m][row][j] for m in range(3)) / 3 for j in range(5)]
        assert score("max logit")[row] == pytest.approx(-max(mean))
        energy = -math.log(sum(math.exp(z) for z in mean))
        assert score("energy")[row] == pytest.approx(energy)
        warm = -2 * math.log(sum(math.exp(z / 2) for z in mean))
        assert energy_detector(2.0).score(SOME)[row] == pytest.approx(warm)


def test_ensemble_scores_by_hand():
    probs = np.exp(Z) / np.exp(Z).sum(axis=-1, keepdims=True)
    for row in range(len(Q)):
        mean = probs[:, row].mean(axis=0)
        divergences = [sum(p * np.log(p / mean)) for p in probs[:, row]]  # KL to the mean
        assert score("mutual information")[row] == pytest.approx(np.mean(divergences))
        votes = [int(np.argmax(z)) for z in Z[:, row]]
        most = max(votes.count(c) for c in range(5))
        assert score("disagreement")[row] == pytest.approx((3 - most) / 3)
    alone = changed(SOME, member_logits=Z[:1], reference=None)
    for name in ("mutual information", "disagreement"):
        with pytest.raises(ValueError, match=r"shape \(1, 60, 5\).*pass at least 2"):
            score(name, alone)


def test_given_label_is_cleanlabs_self_confidence():
    assert score("given label") == pytest.approx([1 - q[y] for q, y in zip(Q, Y, strict=True)])
    rank = importlib.import_module("cleanlab.rank")
    theirs = rank.get_label_quality_scores(Y, Q, method="self_confidence")
    assert np.allclose(1 - theirs, score("given label"))
    assert cleanlab_detector("self_confidence") is DETECTORS["given label"]


def test_cleanlab_scores_by_hand():
    for row, (q, y) in enumerate(zip(Q, Y, strict=True)):
        rival = max(x for j, x in enumerate(q) if j != y)
        assert score("cleanlab margin")[row] == pytest.approx(1 - (q[y] - rival + 1) / 2)
        ratio = -sum(x * math.log(x) for x in q) / math.log(5) / q[y]
        weighted = 1 - math.log(ratio + 1) / ratio  # brought to [0, 1] by the library
        assert score("cleanlab weighted entropy")[row] == pytest.approx(weighted)


def test_cleanlabs_weighted_entropy_does_not_turn_around_at_certainty():
    slips = np.array([0, 1e-15, 1e-12, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1])
    probs = np.stack([1 - slips, slips, 0 * slips], axis=1)
    right, wrong = (
        score("cleanlab weighted entropy", Evidence(probs, given_labels=np.full(len(slips), label)))
        for label in (0, 1)
    )
    assert (np.diff(right) >= -1e-12).all()
    assert (np.diff(wrong) <= 1e-12).all()
    assert right.max() < wrong.min()
    assert right[0] < 0.001
    rank = importlib.import_module("cleanlab.rank")  # the library's own, at certainty
    for label in (0, 1):
        quality = rank.get_label_quality_scores(
            np.array([label]), np.eye(3)[:1], method="confidence_weighted_entropy"
        )
        assert quality == 0


@pytest.mark.parametrize(
    ("method", "filter_by"),
    [("self_confidence", "low_self_confidence"), ("normalized_margin", "low_normalized_margin")],
)
def test_cleanlab_thresholds_are_its_filters(method, filter_by):
    find_label_issues = importlib.import_module("cleanlab.filter").find_label_issues
    mixed, _ = planted(mislabelled=True)
    detector = cleanlab_detector(method)
    flagged = detector.score(mixed) >= detector.published_threshold(mixed)
    issues = find_label_issues(mixed.given_labels, mixed.pred_probs, filter_by=filter_by)
    assert 10 < issues.sum() < len(mixed) / 2
    assert np.array_equal(flagged, issues)
    right = changed(mixed, given_labels=mixed.pred_probs.argmax(axis=1), reference=None)
    assert detector.published_threshold(right) == math.inf


def kl_bits(p, q):
    return sum(a * math.log2(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def js_bits(p, q):
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return 0.5 * kl_bits(p, middle) + 0.5 * kl_bits(q, middle)


def test_jo_src_by_hand_and_flags_as_published():
    for tau in (0.5, 0.75, 0.95):
        detector, soft = jo_src_detector(tau), jo_src_detector(tau, soft=True)
        flagged = detector.score(SOME) >= detector.published_threshold(SOME)
        for row, (q, v, y) in enumerate(zip(Q, V, Y, strict=True)):
            label = [float(j == y) for j in range(5)]
            clean = 1 - js_bits(q, label)
            disagree = np.argmax(q) != np.argmax(v)
            assert flagged[row] == (clean < tau and disagree)
            assert detector.score(SOME)[row] == pytest.approx(1 - clean + disagree)
            both = math.sqrt(js_bits(q, label) * js_bits(q, v))
            assert soft.score(SOME)[row] == pytest.approx(both)
        assert 0 < flagged.sum() < len(flagged)
        assert soft.threshold is None


def test_jo_src_does_not_flag_a_sure_and_consistent_mistake():
    sure = Evidence(np.eye(3)[[0, 0]], given_labels=np.array([1, 1]), view_probs=np.eye(3)[[0, 1]])
    detector = jo_src_detector(1.0)
    assert detector.score(sure).tolist() == [1, 2]
    assert (detector.score(sure) >= detector.threshold).tolist() == [False, True]


def test_dsos_by_hand():
    for row, (q, y) in enumerate(zip(Q, Y, strict=True)):
        squares = sum((0.5 * x + 0.5 * (j == y)) ** 2 for j, x in enumerate(q))
        assert score("DSOS")[row] == pytest.approx(-math.log(squares))
    sure = Evidence(np.eye(3)[[0, 1]], given_labels=np.array([0, 0]))
    assert score("DSOS", sure) == pytest.approx([0, math.log(2)])
    spread = Evidence(np.full((1, 1000), 1e-3), given_labels=np.array([7]))
    assert score("DSOS", spread)[0] == pytest.approx(math.log(4), abs=0.01)


@pytest.mark.filterwarnings("ignore:Best performing initialization")
def test_loss_mixture_is_the_posterior_of_the_high_component():
    mixed, _ = planted(mislabelled=True)
    losses = -np.log([q[y] for q, y in zip(mixed.pred_probs, mixed.given_labels, strict=True)])
    scaled = ((losses - losses.min()) / (losses.max() - losses.min())).reshape(-1, 1)
    source = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=1).fit(scaled)
    # Its posterior, by the density of the two normal distributions.
    spread, means = source.covariances_[:, 0, 0], source.means_[:, 0]
    density = source.weights_ * np.exp(-((scaled - means) ** 2) / (2 * spread)) / np.sqrt(spread)
    posterior = density[:, means.argmax()] / density.sum(axis=1)
    assert np.allclose(score("GMM on loss", mixed), posterior, atol=0.02)
    wrong = mixed.given_labels != mixed.pred_probs.argmax(axis=1)
    flagged = score("GMM on loss", mixed) >= 0.5
    assert flagged[wrong].mean() > 0.8
    assert flagged[~wrong].mean() < 0.1


def test_the_average_margin_by_hand():
    for row, y in enumerate(Y):
        margins = []
        for moment in SOME.training_logits:
            z = moment[row]
            margins.append(z[y] - max(x for j, x in enumerate(z) if j != y))
        assert score("AUM")[row] == pytest.approx(-sum(margins) / 4)


def test_neighbours_vote_by_hand():
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for row, y in enumerate(Y):
        distance = {i: 1 - float(unit[i] @ unit[row]) for i in range(len(X)) if i != row}
        nearest = sorted(distance, key=distance.get)[:9]
        first, second = (distance[i] for i in nearest[:2])
        votes = [0.0] * 5
        votes[y] += 1 - (2 * first - second)
        for i in nearest:
            votes[Y[i]] += 1 - distance[i]
        expected = 1 - votes[y] / math.sqrt(sum(v * v for v in votes))
        assert score("SimiFeat")[row] == pytest.approx(expected)
    few = SOME.take(np.arange(2))
    assert score("SimiFeat", few).tolist() == [0, 0]  # no second neighbour


def test_votes_find_planted_wrong_labels():
    mixed, _ = planted(strangers=0.0, mislabelled=True)
    wrong = mixed.given_labels != mixed.pred_probs.argmax(axis=1)
    assert auroc(score("SimiFeat", mixed), wrong) > 0.95


def test_off_topic_is_the_order_of_scipys_sorted_dendrogram():
    some = SOME.take(np.arange(59))
    merged = hierarchy.linkage(some.features, "single", "cosine")
    leaves = hierarchy.dendrogram(merged, no_plot=True, count_sort="ascending")["leaves"]
    expected = 1 - np.argsort(leaves) / 59
    found = score("SelfClean", some)
    sizes = np.append(np.ones(59), merged[:, 3])
    halves = [sizes[int(a)] / 59 for a, b in merged[:, :2] if sizes[int(a)] == sizes[int(b)]]
    assert np.abs(found - expected).max() <= sum(halves) / 2 + 1e-9  # ties, where it takes either
    assert (np.diff(np.sort(found)) >= -1e-9).all()
    differ = np.abs(found - expected) > 1e-9
    assert differ.mean() < 0.7

    def places(node, before=0.0):
        """By recursion: the smaller branch first, a tie half and half."""
        if node.is_leaf():
            return {node.id: before}
        left, right = node.left, node.right
        if left.count == right.count:
            half = left.count / 2
            return places(left, before + half) | places(right, before + half)
        first, second = sorted((left, right), key=lambda branch: branch.count)
        return places(first, before) | places(second, before + first.count)

    by_hand = places(hierarchy.to_tree(merged))
    assert found == pytest.approx([1 - by_hand[row] / 59 for row in range(59)])


def test_a_stray_is_off_topic_before_a_small_group_and_that_before_the_rest():
    rng = np.random.default_rng(0)
    centres = np.eye(8)[[0] * 40 + [1] * 5 + [2]]
    features = centres + 0.01 * rng.normal(size=centres.shape)
    found = score("SelfClean", Evidence(np.full((46, 2), 0.5), features=features))
    assert found[45] == 1
    assert found[40:45].min() > found[:40].max()
    assert score("SelfClean", Evidence(np.full((1, 2), 0.5), features=np.ones((1, 3)))) == 0
    held_out = Evidence(np.full((1, 2), 0.5), features=np.eye(8)[3:4])
    among = Evidence(np.full((46, 2), 0.5), features=features)
    assert DETECTORS["SelfClean"].score(held_out, among=among) > 0.85


def test_a_chain_of_thousands_is_no_matter_of_recursion():
    angles = np.cumsum(np.linspace(1e-4, 3e-4, 3000))
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = score("SelfClean", Evidence(np.full((3000, 2), 0.5), features=features))
    assert found.argmax() == 2999  # the farthest from its neighbour
    assert found.argmin() <= 1  # the two nearest


def test_knn_is_the_neighbour_distance():
    assert np.array_equal(score("KNN"), neighbor_distance(X, REFERENCE.features, 5))
    whole = knn_detector(1000).score(SOME)  # the farthest, with only 40 there
    assert np.array_equal(whole, neighbor_distance(X, REFERENCE.features, 40))


def test_mahalanobis_by_hand():
    features, labels = REFERENCE.features, REFERENCE.given_labels
    means = {c: features[labels == c].mean(axis=0) for c in set(labels.tolist())}
    centred = np.stack([x - means[int(c)] for x, c in zip(features, labels, strict=True)])
    m, d = centred.shape
    sample = sum(np.outer(x, x) for x in centred) / m
    # Ledoit and Wolf's shrinkage towards the mean variance.
    level = np.trace(sample) / d
    spread = ((sample - level * np.eye(d)) ** 2).sum() / d
    noise = sum(((np.outer(x, x) - sample) ** 2).sum() for x in centred) / m**2 / d
    share = min(noise, spread) / spread
    assert 0 < share < 1
    shrunk = (1 - share) * sample + share * level * np.eye(d)
    inverse = np.linalg.inv(shrunk + 1e-6 * np.trace(shrunk) / d * np.eye(d))
    for row, x in enumerate(X):
        nearest = min((x - mean) @ inverse @ (x - mean) for mean in means.values())
        assert score("Mahalanobis")[row] == pytest.approx(nearest)


def one_linear_head(seed=0, d=20, k=4, count=100):
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(k, d)), rng.normal(size=k)
    parts = []
    for size in (count, 50):
        features = rng.normal(size=(size, d)) * np.linspace(3, 0.1, d) + 1
        logits = features @ weights.T + bias
        head = np.column_stack([weights, bias])
        parts.append(Evidence(softmax(logits, axis=1), logits[None], features, head=head))
    return changed(parts[1], reference=parts[0]), weights, bias


def test_vim_with_one_linear_head_is_the_sources_and_pytorch_oods():
    evidence, weights, bias = one_linear_head()
    ours = vim_detector(8).score(evidence)
    reference, features = evidence.reference.features, evidence.features
    origin = -np.linalg.pinv(weights) @ bias
    covariance = (reference - origin).T @ (reference - origin)
    values, vectors = np.linalg.eigh(covariance)
    rest = vectors[:, np.argsort(values)[: 20 - 8]]
    alpha = (reference @ weights.T + bias).max(axis=1).mean()
    alpha /= np.linalg.norm((reference - origin) @ rest, axis=1).mean()
    residual = np.linalg.norm((features - origin) @ rest, axis=1)
    energy = np.log(np.exp(features @ weights.T + bias).sum(axis=1))
    assert np.allclose(ours, alpha * residual - energy, rtol=1e-6)

    ood = importlib.import_module("pytorch_ood.detector")
    theirs = ood.ViM(None, 8, torch.from_numpy(weights), torch.from_numpy(bias))
    theirs.fit_features(torch.from_numpy(reference), torch.zeros(len(reference)))
    assert np.allclose(ours, theirs.predict_features(torch.from_numpy(features)), atol=1e-3)


def test_vim_keeps_directions_and_something_besides():
    assert principal_dimensions(10**6, 2048) == 1000
    assert principal_dimensions(10**6, 1280) == 512
    assert principal_dimensions(10**6, 64) == 32
    assert principal_dimensions(50, 1280) == 25
    with pytest.raises(ValueError, match="dimensions is 12 and there are 12 features"):
        vim_detector(12).score(SOME)


# -- what it may see ------------------------------------------------------------------------------


def only(evidence, needs):
    """The evidence without what isn't needed; predictions, which must be there, uniform."""
    wanted = {name: getattr(evidence, name) for name in (*ARRAYS, "head") if name in needs}
    uniform = np.full(evidence.pred_probs.shape, 1 / evidence.num_classes)
    reference = None
    if evidence.reference is not None and "reference" in needs:
        dotted = [name.partition(".")[2] for name in needs]
        reference = only(evidence.reference, dotted)
    return Evidence(**{"pred_probs": uniform, **wanted}, reference=reference)


@every_detector
def test_a_detector_reads_what_it_needs_and_nothing_else(name):
    detector = DETECTORS[name]
    assert np.array_equal(detector.score(only(SOME, detector.needs)), detector.score(SOME))
    for lacking in detector.needs:
        if lacking == "pred_probs":
            continue
        poorer = only(SOME, [n for n in detector.needs if not n.startswith(lacking)])
        assert lacking in poorer.missing(detector.needs)
        with pytest.raises(ValueError, match=f"{re.escape(name)} needs .*{lacking}.*lacks"):
            detector.score(poorer)


def test_evidence_has_no_place_for_the_truth():
    fields = {one.name for one in dataclasses.fields(Evidence)}
    assert fields == {*ARRAYS, "head", "reference"}
    assert set(ARRAYS) == {
        "pred_probs", "member_logits", "features", "given_labels", "view_probs", "training_logits",
    }  # fmt: skip
    imported = (ROOT / "genkl" / "detectors").glob("*.py")
    assert not any("genkl.data" in path.read_text() for path in imported)


@every_detector
def test_the_order_of_instances_does_not_matter(name):
    order = np.random.default_rng(5).permutation(len(SOME))
    assert np.allclose(score(name, SOME.take(order)), score(name)[order], rtol=1e-9, atol=1e-12)
    shuffled = REFERENCE.take(np.random.default_rng(6).permutation(len(REFERENCE)))
    assert np.allclose(score(name, changed(SOME, reference=shuffled)), score(name), rtol=1e-6)


@every_detector
def test_the_names_of_classes_matter_to_the_sampled_rule_only(name):
    order = np.random.default_rng(7).permutation(5)
    place = np.argsort(order)

    def rename(evidence):
        return changed(
            evidence,
            pred_probs=evidence.pred_probs[:, order],
            member_logits=evidence.member_logits[:, :, order],
            training_logits=evidence.training_logits[:, :, order],
            head=evidence.head[order],
            view_probs=evidence.view_probs[:, order],
            given_labels=place[evidence.given_labels],
            reference=evidence.reference and rename(evidence.reference),
        )

    if name == "GenKL":
        assert not np.allclose(score(name, rename(SOME)), score(name))
    else:
        assert np.allclose(score(name, rename(SOME)), score(name), rtol=1e-6)


@every_detector
def test_a_constant_added_to_logits_shifts_the_logit_scores_only(name):
    shifted = changed(SOME, member_logits=Z + 3.0, pred_probs=softmax(Z + 3.0, axis=-1).mean(0))
    shift = -3.0 if name in ("max logit", "energy") else 0.0
    assert np.allclose(score(name, shifted), score(name) + shift, rtol=1e-6)


@every_detector
def test_scoring_one_by_one_is_the_same_unless_relative(name):
    detector = DETECTORS[name]
    if name in ("SimiFeat", "SelfClean"):  # one counts as among the others, or as beside them
        return
    among = SOME if detector.relative else None
    apart = [detector.score(SOME.take(np.array([row])), among=among)[0] for row in range(10)]
    assert np.allclose(apart, score(name)[:10], rtol=1e-9)


@every_detector
def test_tensors_and_single_precision_give_the_same(name):
    def as_tensors(evidence):
        return changed(
            evidence,
            **{one: torch.from_numpy(getattr(evidence, one)) for one in ARRAYS},
            reference=evidence.reference and as_tensors(evidence.reference),
        )

    assert np.array_equal(score(name, as_tensors(SOME)), score(name))
    single = changed(
        SOME, **{n: getattr(SOME, n).astype(np.float32) for n in ARRAYS if n[0] != "g"}
    )
    result = score(name, single)
    assert result.dtype == np.float64
    assert np.allclose(result, score(name), rtol=1e-3, atol=1e-5)


# -- what it finds --------------------------------------------------------------------------------


def planted(count=400, k=5, width=16, strangers=0.2, seed=0, sees="all", mislabelled=False):
    """Conforming instances and strangers.

    ``sees`` says by what strangers differ: flat predictions, disagreeing models, or far features;
    the rest of their evidence is that of conforming instances. Given labels are right but where
    ``mislabelled``, and a stranger's is one of the k.
    """
    rng = np.random.default_rng(seed)
    is_nc = rng.random(count) < strangers
    truth = rng.integers(0, k, count)
    centres = 4 * np.random.default_rng(99).normal(size=(k, width))

    def logits_of(own):
        peak = np.where(own, 0.0, 6.0) if sees in ("all", "flat") else np.full(count, 6.0)
        base = peak[:, None] * np.eye(k)[truth] + 0.5 * rng.normal(size=(count, k))
        wild = 4.0 if sees in ("all", "models") else 0.3
        own_noise = np.where(own, wild, 0.3)
        return base + own_noise[:, None] * rng.normal(size=(5, count, k))

    features = centres[truth] + rng.normal(size=(count, width))
    if sees in ("all", "features"):
        features[is_nc] = 4 * rng.normal(size=(is_nc.sum(), width))
    logits, view = logits_of(is_nc), logits_of(is_nc)
    labels = truth.copy()
    if mislabelled:
        wrong = rng.random(count) < 0.2
        labels[wrong] = (truth[wrong] + rng.integers(1, k, wrong.sum())) % k
    reference = None
    if strangers:
        reference, _ = planted(300, k, width, 0.0, seed + 1, sees)
    # A model that learns the labels: slowly those that don't fit what an instance looks like.
    moments = np.linspace(0.2, 1, 4)[:, None, None]
    learned = logits.mean(0) * moments + 2 * moments**3 * np.eye(k)[labels]
    return (
        Evidence(
            softmax(logits, axis=-1).mean(0),
            logits,
            features,
            labels,
            softmax(view, axis=-1).mean(0),
            reference,
            learned,
            np.column_stack([centres / 10, np.zeros(k)]),
        ),
        is_nc,
    )


SEES_FLAT = {name for name in DETECTORS if DETECTORS[name].family in (
    "divergence", "softmax", "logits", "label",
)} - {"Jo-SRC soft", "SimiFeat"}  # fmt: skip
SEES_FEATURES = {"KNN", "Mahalanobis", "ViM", "SelfClean"}
SEES_MODELS = {"mutual information", "disagreement"}


@every_detector
def test_planted_strangers_are_found_by_who_can_see_them(name):
    for sees, seers in (
        ("flat", SEES_FLAT),
        ("features", SEES_FEATURES),
        ("models", SEES_MODELS),
    ):
        evidence, is_nc = planted(sees=sees)
        area = auroc(score(name, evidence), is_nc)
        if name in seers:
            assert area > 0.9, sees
    evidence, is_nc = planted()
    assert auroc(score(name, evidence), is_nc) > 0.9 or name == "SimiFeat"  # it looks for labels


@every_detector
def test_who_does_not_look_there_is_near_chance(name):
    areas = {"features": [], "nothing": []}
    for seed in range(5):
        evidence, is_nc = planted(sees="features", seed=10 * seed)
        areas["features"].append(auroc(score(name, evidence), is_nc))
        evidence, is_nc = planted(sees="nothing", seed=10 * seed)
        areas["nothing"].append(auroc(score(name, evidence), is_nc))
    assert np.mean(areas["nothing"]) == pytest.approx(0.5, abs=0.08)
    if "features" not in DETECTORS[name].needs:
        assert np.mean(areas["features"]) == pytest.approx(0.5, abs=0.08)


def test_label_noise_is_no_stranger_to_who_reads_no_labels():
    plain, _ = planted(sees="nothing")
    noisy, _ = planted(sees="nothing", mislabelled=True)
    for name, detector in DETECTORS.items():
        if "given_labels" not in detector.needs:
            assert np.array_equal(score(name, noisy), score(name, plain))


# -- extremes -------------------------------------------------------------------------------------


def extremes():
    k, n = 4, 12
    labels = np.arange(n) % k
    for what in ("one-hot", "uniform", "huge logits", "constant features", "zero features"):
        probs, logits = np.full((n, k), 1 / k), np.zeros((2, n, k))
        features = np.random.default_rng(0).normal(size=(n, 3))
        if what == "one-hot":
            probs = np.eye(k)[(labels + np.arange(n) // k) % k]  # right, wrong, wrong
        if what == "huge logits":
            logits = 1e30 * np.random.default_rng(1).normal(size=(2, n, k))
            probs = softmax(logits, axis=-1).mean(axis=0)
        if what == "constant features":
            features = np.full((n, 3), 7.0)
        if what == "zero features":
            features = np.zeros((n, 3))
        parts = (probs, logits, features, labels, probs[::-1])
        more = {"training_logits": logits, "head": np.ones((k, 4))}
        yield what, Evidence(*parts, reference=Evidence(*parts, **more), **more)


@every_detector
@pytest.mark.parametrize("what", [what for what, _ in extremes()])
@pytest.mark.filterwarnings("error")
def test_extreme_evidence_gives_finite_scores(name, what):
    evidence = dict(extremes())[what]
    detector = DETECTORS[name]
    assert np.isfinite(detector.score(evidence)).all()
    assert np.isfinite(detector.score(evidence.take(np.array([3])))).all()
    assert np.isfinite(detector.conforming_scores(evidence, folds=3)).all()


def test_a_reference_without_a_class_or_with_one_instance_of_it():
    labels = np.minimum(REFERENCE.given_labels, 3)
    labels[0] = 3
    poor = changed(REFERENCE, given_labels=labels)
    assert np.isfinite(score("Mahalanobis", changed(SOME, reference=poor))).all()
    assert np.isfinite(
        DETECTORS["Mahalanobis"].conforming_scores(changed(SOME, reference=poor))
    ).all()


@pytest.mark.parametrize("name", ["given label", "cleanlab margin"])
def test_cleanlabs_count_stands_classes_without_labels(name):
    few = changed(SOME, given_labels=np.minimum(Y, 2))
    assert DETECTORS[name].published_threshold(few) > 0


def test_rounding_above_one_and_models_that_agree():
    rounded = Evidence(np.array([[1 + 1e-7, 0.0], [0.5, 0.5]]), given_labels=np.array([0, 1]))
    for name in DETECTORS:
        if name.startswith("cleanlab"):
            assert score(name, rounded)[0] == pytest.approx(0, abs=1e-3)
    same = Evidence(Q, np.repeat(Z[:1], 7, axis=0))
    assert (score("mutual information", same) >= 0).all()
    assert score("mutual information", same) == pytest.approx(np.zeros(60), abs=1e-12)
    assert not score("disagreement", same).any()


# -- evidence -------------------------------------------------------------------------------------

N34 = np.full((3, 4), 0.25)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pred_probs": np.ones((3, 4))}, "pred_probs sums to 4"),
        ({"pred_probs": np.ones(4) / 4}, r"pred_probs has shape \(4,\)"),
        ({"view_probs": N34[:2]}, r"view_probs has shape \(2, 4\); expected \(3, 4\)"),
        ({"member_logits": np.ones((3, 4))}, r"member_logits has shape \(3, 4\); expected \(any"),
        ({"member_logits": np.ones((0, 3, 4))}, r"member_logits has shape \(0, 3, 4\)"),
        ({"member_logits": np.full((2, 3, 4), np.nan)}, "member_logits contains NaN.*row 0"),
        ({"training_logits": np.ones((9, 2, 4))}, r"training_logits has shape \(9, 2, 4\)"),
        ({"head": np.ones((3, 6))}, r"head has shape \(3, 6\); expected \(4, any\)"),
        (
            {"features": np.ones((3, 5)), "head": np.ones((4, 5))},
            r"head has shape \(4, 5\); expected \(4, 6\)",
        ),
        ({"features": np.ones((2, 5))}, r"features has shape \(2, 5\); expected \(3, any\)"),
        ({"features": np.diag([1.0, np.inf, 1.0])}, "features contains NaN or infinity in row 1"),
        ({"given_labels": np.array([0, 4, 1])}, r"given_labels\[1\] is 4"),
        ({"given_labels": np.array([0, 1])}, r"given_labels has shape \(2,\)"),
        (
            {"reference": Evidence(np.full((2, 3), 1 / 3))},
            "the reference has 3 classes and pred_probs has 4",
        ),
        (
            {"reference": Evidence(N34, reference=Evidence(N34))},
            "the reference has a reference itself",
        ),
        (
            {
                "features": np.ones((3, 5)),
                "reference": Evidence(N34, features=np.ones((3, 6))),
            },
            "features has 5 columns and the reference's has 6",
        ),
    ],
)
def test_evidence_refuses_what_does_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        Evidence(**{"pred_probs": N34, **fields})


def test_evidence_is_frozen_taken_and_asked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SOME.features = None
    some = SOME.take(np.array([5, 2]))
    assert len(some) == 2
    assert np.array_equal(some.member_logits, Z[:, [5, 2]])
    assert some.given_labels.tolist() == Y[[5, 2]].tolist()
    assert some.reference is REFERENCE
    plain = Evidence(N34)
    assert plain.missing(("pred_probs", "features", "reference.features")) == (
        "features",
        "reference.features",
    )
    assert SOME.missing(("features", "reference.given_labels")) == ()
    with pytest.raises(ValueError, match="unknown field of evidence 'truth'"):
        SOME.missing(("truth",))
    with pytest.raises(TypeError, match="dtype float64"):
        Evidence(N34, given_labels=np.zeros(3))


# -- detectors ------------------------------------------------------------------------------------


def test_the_registry_is_read_only_and_complete():
    with pytest.raises(TypeError):
        DETECTORS["mine"] = DETECTORS["entropy"]
    assert all(one.name == name for name, one in DETECTORS.items())
    assert {one.family for one in DETECTORS.values()} == set(FAMILIES)
    keys = re.findall(
        r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(), re.MULTILINE
    )
    assert len(keys) == len(set(keys))
    assert {one.source for one in DETECTORS.values()} <= set(keys)


@every_detector
def test_every_detector_has_a_card(name):
    card = DETECTORS[name].card
    assert set(card) == {"formula", "source", "differs"}
    assert card["formula"].count("$") >= 2
    assert card["formula"].count("$") % 2 == 0
    assert all(card[key] and "`" not in card[key].replace("``", "") for key in card)


def test_a_rule_without_a_card_is_told_what_it_lacks():
    def rule(evidence):
        """Half a card.

        Formula: :math:`q_0`,
        the first.
        """
        return evidence.pred_probs[:, 0]

    with pytest.raises(ValueError, match="mine's rule has no paragraph 'Differs: '"):
        detector(rule=rule).card  # noqa: B018
    rule.__doc__ += "\n        Differs: in nothing.\n"
    assert detector(rule=rule).card == {
        "source": "huang2023genkl",
        "formula": "$q_0$, the first.",
        "differs": "in nothing.",
    }


def detector(**changes):
    fields = {"name": "mine", "needs": ("pred_probs",), "rule": lambda e: e.pred_probs[:, 0]}
    return Detector(**{**fields, "source": "huang2023genkl", "family": "softmax", **changes})


def test_a_detector_of_ones_own():
    assert np.array_equal(detector().score(SOME), Q[:, 0])
    assert detector(threshold=0.3).published_threshold(SOME) == 0.3
    assert detector(threshold=lambda e: len(e) / 2).published_threshold(SOME) == 30
    assert not detector().is_fitted
    with pytest.raises(ValueError, match="unknown family 'magic'"):
        detector(family="magic")
    with pytest.raises(ValueError, match="unknown field of evidence 'kinds'"):
        detector(needs=("kinds",))
    with pytest.raises(ValueError, match=r"mine returned shape \(60, 5\)"):
        detector(rule=lambda e: e.pred_probs).score(SOME)
    with pytest.raises(ValueError, match="mine scored row 0 with inf"):
        detector(rule=lambda e: np.full(len(e), np.inf)).score(SOME)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: genkl_detector(alpha=0), "alpha is 0"),
        (lambda: genkl_detector(num_vectors=0), "num_vectors is 0"),
        (lambda: genkl_detector(sigma=-1), "sigma is -1"),
        (lambda: genkl_detector(0.5).score(SOME), r"beta is 0\.5"),
        (lambda: energy_detector(0), "it must be a finite number"),
        (lambda: cleanlab_detector("magic"), "unknown method 'magic'"),
        (lambda: jo_src_detector(1.5), r"tau_clean is 1\.5"),
        (lambda: knn_detector(0), "neighbors is 0"),
        (lambda: vim_detector(-1), "dimensions is -1"),
    ],
)
def test_factories_refuse_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_detector
def test_a_threshold_from_conforming_scores_keeps_its_budget(name):
    rates = []
    for seed in range(4):
        evidence, is_nc = planted(count=600, sees="nothing", seed=20 * seed)
        one = DETECTORS[name]
        threshold = threshold_for_budget(one.conforming_scores(evidence), 0.1)
        rates.append((one.score(evidence) >= threshold)[~is_nc].mean())
    assert np.mean(rates) < 0.16


def test_conforming_scores_are_cross_fitted_in_order_or_fitted_to_the_scored():
    seen = []

    def rule(evidence):
        seen.append(len(evidence.reference))
        shared = set(evidence.features[:, 0]) & set(evidence.reference.features[:, 0])
        assert not shared
        return evidence.features[:, 0]

    fitted = detector(needs=("features", "reference", "reference.features"), rule=rule)
    assert fitted.is_fitted
    assert np.array_equal(fitted.conforming_scores(SOME, folds=4), REFERENCE.features[:, 0])
    assert seen == [30, 30, 30, 30]
    mixture = DETECTORS["GMM on loss"]
    assert np.array_equal(mixture.conforming_scores(SOME), mixture.score(REFERENCE, among=SOME))
    assert not np.array_equal(mixture.conforming_scores(SOME), mixture.score(REFERENCE))
    assert np.array_equal(DETECTORS["DSOS"].conforming_scores(SOME), score("DSOS", REFERENCE))
    with pytest.raises(ValueError, match="no reference; pass held-out"):
        DETECTORS["DSOS"].conforming_scores(REFERENCE)
    with pytest.raises(ValueError, match="folds is 1"):
        fitted.conforming_scores(SOME, folds=1)


# -- the extra ------------------------------------------------------------------------------------


def test_without_the_extra_the_error_says_what_to_install():
    code = """
import sys
sys.modules['cleanlab'] = sys.modules['pytorch_ood'] = None
import numpy as np
from genkl import DETECTORS, Evidence
logits = np.zeros((2, 3, 4))
evidence = Evidence(np.full((3, 4), .25), member_logits=logits, given_labels=np.arange(3))
print(DETECTORS['entropy'].score(evidence)[0])
for name in ('cleanlab margin', 'energy'):
    try:
        DETECTORS[name].score(evidence)
    except ModuleNotFoundError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "1.0",
        "cleanlab is not installed; pip install 'genkl[benchmark]'",
        "pytorch-ood is not installed; pip install 'genkl[benchmark]'",
    ]


def test_the_extra_is_loaded_only_when_it_is_needed():
    extra = "{'torch', 'cleanlab', 'pytorch_ood'}"
    code = f"import sys, genkl.detectors; print({extra} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    with pytest.raises(ModuleNotFoundError, match="no_such_part"):
        import_extra("cleanlab.no_such_part")


# -- combinations ---------------------------------------------------------------------------------


def two_halves_of_a_signal(count=800, seed=0):
    rng = np.random.default_rng(seed)
    is_nc = rng.random(count) < 0.3
    return rng.normal(size=(count, 2)) + is_nc[:, None], is_nc


def test_a_combination_finds_what_two_scores_know_apart():
    scores, is_nc = two_halves_of_a_signal()
    both = auroc(combination(scores, is_nc), is_nc)
    each = [auroc(combination(scores[:, i], is_nc), is_nc) for i in range(2)]
    assert both > max(each) + 0.03
    assert both == pytest.approx(auroc(scores.sum(axis=1), is_nc), abs=0.01)
    assert each[0] == pytest.approx(auroc(scores[:, 0], is_nc), abs=0.01)


def test_a_combination_with_noise_gains_nothing_since_it_is_cross_fitted():
    rng = np.random.default_rng(1)
    gains = []
    for seed in range(5):
        scores, is_nc = two_halves_of_a_signal(300, seed)
        noise = rng.normal(size=(300, 20))
        alone = auroc(combination(scores[:, 0], is_nc), is_nc)
        gains.append(auroc(combination(np.c_[scores[:, 0], noise], is_nc), is_nc) - alone)
    assert np.mean(gains) < 0
    blind = [auroc(combination(noise, is_nc, seed=seed), is_nc) for seed in range(5)]
    assert np.mean(blind) < 0.6


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000))
def test_a_combination_sees_ranks_only(seed):
    scores, is_nc = two_halves_of_a_signal(100, seed)
    stretched = np.stack([np.exp(scores[:, 0]), scores[:, 1] ** 3], axis=1)
    mixed = combination(scores, is_nc, seed=seed)
    assert np.array_equal(mixed, combination(stretched, is_nc, seed=seed))
    assert mixed.shape == (100,)
    assert ((mixed > 0) & (mixed < 1)).all()


def test_a_group_stays_in_one_fold():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 10)
    is_nc = np.repeat(rng.random(40) < 0.5, 10)
    own = np.repeat(rng.permutation(40), 10) + 0.0  # tells groups apart, knows nothing else
    scores = np.stack([np.cos(own * j) for j in range(1, 15)], axis=1)
    leaking = auroc(combination(scores, is_nc), is_nc)
    apart = auroc(combination(scores, is_nc, groups=groups), is_nc)
    assert leaking > 0.75
    assert apart < leaking - 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.ones((5, 2))}, r"scores has shape \(5, 2\)"),
        ({"scores": np.full((100, 1), np.nan)}, "scores contains NaN"),
        ({"folds": 1}, "folds is 1"),
        ({"is_nc": np.arange(100) < 3}, "folds is 5, and there are instances of only 3 rows"),
        ({"groups": np.arange(100) // 50}, "of only 1 groups"),
        ({"groups": np.arange(5)}, r"groups has shape \(5,\)"),
    ],
)
def test_a_combination_refuses_bad_input(changes, message):
    fields = {"scores": np.ones((100, 2)), "is_nc": np.arange(100) < 50, **changes}
    with pytest.raises(ValueError, match=message):
        combination(fields.pop("scores"), fields.pop("is_nc"), **fields)
