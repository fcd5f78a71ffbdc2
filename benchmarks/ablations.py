"""Studies of learning: one question each, answered by changing one piece of GenKL at a time.

Where methods are compared, each is run with its default settings and with those that the search of
`benchmarks.studies` chose for the data set; so is every change of GenKL's mechanism.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

import genkl
from benchmarks import studies
from benchmarks.steps import STEPS, run_step
from benchmarks.studies import (
    SEEDS,
    Chosen,
    config_of,
    groundwork,
    load,
    settings_to_run,
    summarised,
    summary,
)
from benchmarks.sweep import Cell
from genkl.baselines import Groundwork
from genkl.data import Kind, NoisyDataset, Truth
from genkl.data.base import NON_CONFORMING
from genkl.detectors import DETECTORS, Detector, Evidence
from genkl.evaluate import auroc
from genkl.learn import Decision, GenKLConfig, divergence_rule, entropy_rule, flag_nothing
from genkl.published import Published
from genkl.relabel import Relabelled, Role, relabel_instances

ABLATED = ("clothing", "cifar10n-worst-500")
"""Data sets that one piece at a time is changed on: heads, seconds each."""


def run_cell(study: str, data: str, seed: int, **changed: Any) -> dict[str, Any]:
    """One cell of the sweep; the settings decide the result.

    Args:
        study: of `STUDIES`, or "search" and "main".
        data: of `CASES`.
        seed: of splits, planted noise, weights and batches.
        changed: what the study changes.
    """
    if study == "search":
        return studies.run_searched(data, seed, **changed)
    if study == "main":
        return studies.run_compared(data, seed, **changed)
    return STUDIES[study].run(data, seed, **changed)


def run_varied(
    data: str, seed: int, config: GenKLConfig | None = None, **more: Any
) -> dict[str, Any]:
    """GenKL with one piece changed: a configuration, or what `run_genkl` takes."""
    dataset, truth = load(data, seed)
    return _genkl(dataset, truth, config or config_of(data), seed, **more)


def _genkl(
    dataset: NoisyDataset, truth: Truth, config: GenKLConfig, seed: int, **more: Any
) -> dict[str, Any]:
    options = {"seed": seed, "backbone": None, "engine": "cpu", "progress": False, **more}
    return summary(genkl.run_genkl(dataset, config, **options), dataset.test, truth)


@dataclass(frozen=True)
class Study:
    """One question: what is changed, on which data, over which seeds.

    Attributes:
        question: in words.
        run: called with data, seed and the changed settings.
        changes: the settings to go through.
        base: the changes that the others are held against, see `benchmarks.learning`.
        data: names of `CASES`.
        seeds: how many of `SEEDS`.
        tuned: the method whose settings are changed with the tuning; "method" stands for that of
            the change, None for the default settings alone.
    """

    question: str
    run: Callable[..., dict[str, Any]]
    changes: Sequence[Mapping[str, Any]]
    base: Mapping[str, Any]
    data: Sequence[str] = ABLATED
    seeds: int = len(SEEDS)
    tuned: str | None = None


def _with_config(data: str, seed: int, **fields: Any) -> dict[str, Any]:
    return run_varied(data, seed, replace(config_of(data), **fields))


def _on_data(
    data: str, seed: int, method: str, settings: Mapping[str, Any], **loading: Any
) -> dict[str, Any]:
    """A method on data that are loaded in another way: `load`'s pixels, or the loader's options."""
    return summarised(*load(data, seed, **loading), data, seed, method, settings=settings)


def _alpha_beta(data: str, seed: int, alpha: float | None, beta_share: float) -> dict[str, Any]:
    return _with_config(data, seed, alpha=alpha, beta=beta_share / load(data, seed)[0].num_classes)


def _loss(data: str, seed: int, loss: str) -> dict[str, Any]:
    return run_varied(data, seed, losses=losses_named(loss))


def losses_named(name: str) -> Mapping[Role, Any]:
    """A row loss for all roles, or "A for clean, B for noisy"."""
    if " + " not in name:
        return genkl.losses_of(name)
    clean, noisy = map(genkl.losses_of, name.split(" + "))
    return {role: (clean if role is Role.CLEAN else noisy)[role] for role in Role}


def _models(data: str, seed: int, first: int, each_round: int) -> dict[str, Any]:
    return _with_config(data, seed, first_ensemble=first, ensemble=each_round)


def given_only(pred_probs, given, is_nc, class_ratio) -> Relabelled:
    """One-hot given labels in place of double-hot vectors."""
    made = relabel_instances(pred_probs, given, is_nc, class_ratio)
    targets = np.where(is_nc[:, None], made.targets, np.eye(pred_probs.shape[1])[given])
    return replace(made, targets=targets, kept_part=None)


def predicted_only(pred_probs, given, is_nc, class_ratio) -> Relabelled:
    """One-hot predicted classes in place of double-hot vectors."""
    return given_only(pred_probs, pred_probs.argmax(axis=1), is_nc, class_ratio)


def equal_ratio(pred_probs, given, is_nc, class_ratio) -> Relabelled:
    """Double-hot vectors whose weight of the given label is 1/k for every class."""
    equal = np.full_like(class_ratio, class_ratio.mean())
    return relabel_instances(pred_probs, given, is_nc, equal)


def full_weight(pred_probs, given, is_nc, class_ratio) -> Relabelled:
    """Double-hot vectors whose weight of the given label is 1."""
    return relabel_instances(pred_probs, given, is_nc, np.ones_like(class_ratio))


MECHANISMS: dict[str, Callable[[GenKLConfig], tuple[GenKLConfig, dict[str, Any]]]] = {
    "all of it": lambda c: (c, {}),
    "no NC stage": lambda c: (c, {"identify": flag_nothing}),
    "NC ignored": lambda c: (replace(c, omega=(*c.omega[:2], 0.0)), {}),
    "given label in place of double-hot": lambda c: (c, {"relabel": given_only}),
    "prediction in place of double-hot": lambda c: (c, {"relabel": predicted_only}),
    "equal class ratio": lambda c: (c, {"relabel": equal_ratio}),
    "given label at full weight": lambda c: (c, {"relabel": full_weight}),
    "no mixup": lambda c: (replace(c, mixup_alpha=0.0), {}),
    "no clean term": lambda c: (replace(c, omega=(0.0, *c.omega[1:])), {}),
    "equal weights of the terms": lambda c: (replace(c, omega=(c.train.batch_size,) * 3), {}),
    "one round": lambda c: (replace(c, max_rounds=1), {}),
    "no fine-tuning": lambda c: (replace(c, finetune=replace(c.finetune, steps=0)), {}),
}
"""Name -> the configuration and options that lack one piece."""


def _mechanism(data: str, seed: int, mechanism: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    config, options = MECHANISMS[mechanism](config_of(data, settings))
    return run_varied(data, seed, config, **options)


IDENTIFIED = ("GenKL", "GenKL invariant", "entropy", "max softmax", "KNN", "given label")
IDENTIFIED += ("Jo-SRC", "DSOS", "random", "nothing", "oracle")
"""What flags in place of D, all within the same budget on validation instances."""


def _identified(data: str, seed: int, identify: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """One round, after the same first predictor."""
    _, truth = load(data, seed)
    config = replace(config_of(data, settings), max_rounds=1)
    work = groundwork(data, seed)
    rule = rule_named(identify, config, work, truth, seed)
    return run_varied(data, seed, config, identify=rule, predictor=work.predictor())


def rule_named(
    name: str, config: GenKLConfig, work: Groundwork, truth: Truth, seed: int
) -> Callable[[np.ndarray, np.ndarray], Decision]:
    """An identification rule; the oracle and chance flag as many as there are."""
    is_nc = np.isin(truth.kinds, NON_CONFORMING)
    if name == "nothing":
        return flag_nothing
    if name == "GenKL":
        return divergence_rule(config)
    if name == "entropy":
        return entropy_rule(config.max_flag_rate)
    if name == "oracle":
        return lambda *_: Decision(is_nc.astype(float), 0.5)
    if name == "random":
        drawn = np.random.default_rng([seed, 7]).permutation(is_nc)
        return lambda *_: Decision(drawn.astype(float), 0.5)
    views = {}
    if name == "Jo-SRC":
        models, sides = work.predictor(), (0, 1)
        for part in ("noisy", "validation"):
            inputs = getattr(work.dataset, part).inputs
            views[part] = [genkl.predict_probs(models[side::2], inputs) for side in sides]
    return functools.partial(_detect, DETECTORS[name], work.dataset, views, config.max_flag_rate)


def _detect(
    detector: Detector,
    dataset: NoisyDataset,
    views: Mapping[str, Sequence[np.ndarray]],
    budget: float,
    pred_probs: np.ndarray,
    validation_probs: np.ndarray,
) -> Decision:
    """A detector as a rule: it flags a budget of the validation instances."""
    evidence = None
    for part, probs in (("validation", validation_probs), ("noisy", pred_probs)):
        split = getattr(dataset, part)
        first, second = views.get(part, (probs, None))
        evidence = Evidence(
            pred_probs=first,
            view_probs=second,
            features=split.inputs.flatten(1).numpy(),
            given_labels=split.labels.numpy(),
            reference=evidence,
        )
    threshold = genkl.threshold_for_budget(detector.conforming_scores(evidence), budget)
    return Decision(detector.score(evidence), threshold)


METHODS_FEW = ("clean set alone", "given labels + fine-tuning", "kNN relabelling", "GenKL")


def _network(
    data: str, seed: int, network: str, method: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    own = {"make_model": getattr(genkl, network), "settings": settings}
    return summarised(*load(data, seed), data, seed, method, **own)


def _rounds(data: str, seed: int, identify: str) -> dict[str, Any]:
    config = replace(config_of(data), max_rounds=5)
    rule = {"GenKL": None, "entropy": entropy_rule(config.max_flag_rate), "nothing": flag_nothing}
    return run_varied(data, seed, config, identify=rule[identify], stop_early=False)


def _published(data: str, seed: int, switch: str) -> dict[str, Any]:
    return run_varied(data, seed, published_behaviour=Published[switch])


# -- does finding help? ---------------------------------------------------------------------------

WHOLE = {"label_noise": 0.0, "ambiguous_share": 0.0, "stranger_share": 0.0}
NOISES: dict[str, tuple[tuple[Kind, ...], dict[str, Any]]] = {
    "wrong labels": ((Kind.MISLABELLED,), {**WHOLE, "label_noise": 0.2}),
    "OOD": ((Kind.OOD, Kind.NC, Kind.AMBIGUOUS), {**WHOLE, "stranger_share": 0.2}),
    "AID": ((Kind.AMBIGUOUS,), {**WHOLE, "ambiguous_share": 0.2}),
}
"""One kind of noise at a time: what it is by the truth (images that people labelled with doubt are
among the clothes' strangers), and how it is loaded."""

FOUND = ("nothing", "random", "entropy", "GenKL", "KNN", "given label", "DSOS", "oracle")
LEARNERS = ("left out", "uniform")


def _found(
    data: str, seed: int, noise: str, find: str, learner: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Flag as many as there are, by a detector's order; leave them out, or teach them doubt.

    Args:
        data, seed: of `load`.
        noise: of `NOISES`.
        find: of `FOUND`.
        learner: "left out" learns the other given labels, and is fine-tuned; "uniform" is GenKL in
            one round, whose non-conforming instances are those flagged.
        settings: of "given labels + fine-tuning", or of GenKL.
    """
    kinds, loading = NOISES[noise]
    work = groundwork(data, seed, **loading)
    dataset, (_, truth) = work.dataset, load(data, seed, **loading)
    is_noise = np.isin(truth.kinds, kinds)
    scores = scores_of(find, work, is_noise, seed)
    flagged = np.zeros(len(is_noise), dtype=bool)
    if find != "nothing":
        order = np.lexsort((np.random.default_rng([seed, 8]).random(len(scores)), scores))
        flagged[order[len(order) - is_noise.sum() :]] = True
    if learner == "left out":
        rest = replace(dataset, noisy=dataset.noisy.take(np.flatnonzero(~flagged)))
        method = "given labels + fine-tuning"
        made = summarised(rest, truth, data, seed, method, settings=settings)
    else:
        config = replace(config_of(data, settings), max_rounds=1)
        own = {"identify": lambda *_: flagged, "predictor": work.predictor()}
        made = _genkl(dataset, truth, config, seed, **own)
    found = genkl.precision_recall_f1(flagged, is_noise)["recall"]
    return {**made, "auroc": auroc(scores, is_noise), "found": found}


def scores_of(find: str, work: Groundwork, is_noise: np.ndarray, seed: int) -> np.ndarray:
    """What orders the noisy instances, the likeliest noise highest."""
    if find in ("nothing", "oracle"):
        return is_noise * float(find == "oracle")
    if find == "random":
        return np.random.default_rng([seed, 7]).random(len(is_noise))
    held_out = work.setup.predict(work.predictor(), work.dataset.validation)
    return _detect(DETECTORS[find], work.dataset, {}, 0.5, work.noisy_probs(), held_out).scores


# -- GenKL's dials --------------------------------------------------------------------------------

WEIGHTS = {"class ratio": relabel_instances, "full": full_weight}


def _dials(
    data: str, seed: int, clean_per_class: int, omega: float, given_weight: str
) -> dict[str, Any]:
    """Clean budget, weight of the relabelled instances' loss, and weight of the given label."""
    dataset, truth = load(data, seed, clean_per_class=clean_per_class)
    config = replace(c := config_of(data), omega=(c.omega[0], omega, c.omega[2]))
    return _genkl(dataset, truth, config, seed, relabel=WEIGHTS[given_weight])


# -- the studies ----------------------------------------------------------------------------------


def _each(**settings: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the settings' values; the last setting changes fastest."""
    return [dict(zip(settings, row, strict=True)) for row in product(*settings.values())]


ALPHAS = (None, 0.2, 0.35, 0.5, 0.7, 0.9)
LOSSES = ("paper", "ce", "mse", "mae", "kl", "gce", "sce", "ce + gce", "ce + mae", "ce + sce")
COUNTS = ((1, 1), (3, 1), (5, 1), (5, 3), (5, 5), (10, 3))
SWITCHES = [switch.name for switch in (Published.NONE, *Published)]
STUDIES = {
    "alpha-beta": Study(
        "Does it matter which alpha and beta?",
        _alpha_beta,
        _each(alpha=ALPHAS, beta_share=(0.25, 0.75)),
        {"alpha": None},
        seeds=3,
    ),
    "sigma": Study(
        "Does the spread of the vectors matter?",
        _with_config,
        _each(sigma=(0.0, 0.05, 0.1)),
        {"sigma": 0.05},
        seeds=3,
    ),
    "vectors": Study(
        "Does their number?",
        _with_config,
        _each(num_vectors=(1, 20, 100)),
        {"num_vectors": 20},
        seeds=3,
    ),
    "loss": Study("Would other losses do?", _loss, _each(loss=LOSSES), {"loss": "paper"}, seeds=3),
    "models": Study(
        "How many models are averaged?",
        _models,
        [{"first": first, "each_round": each} for first, each in COUNTS],
        {"first": 5, "each_round": 3},
        seeds=3,
    ),
    "mechanism": Study(
        "What does each piece do?",
        _mechanism,
        _each(mechanism=MECHANISMS),
        {"mechanism": "all of it"},
        tuned="GenKL",
    ),
    "identify": Study(
        "Would other detectors do?",
        _identified,
        _each(identify=IDENTIFIED),
        {"identify": "GenKL"},
        tuned="GenKL",
    ),
    "finding": Study(
        "Does finding help learning?",
        _found,
        _each(noise=NOISES, learner=LEARNERS, find=FOUND),
        {"find": "nothing"},
        data=("digits", "clothing"),
        tuned="learner",
    ),
    "steps": Study(
        "What does each step to the posterior do?",
        run_step,
        _each(step=STEPS),
        {"step": "none"},
        data=("digits", *ABLATED),
        tuned="GenKL calibrated",
    ),
    "rounds": Study(
        "Do more rounds help?",
        _rounds,
        _each(identify=("GenKL", "entropy", "nothing")),
        {"identify": "nothing"},
    ),
    "clean-size": Study(
        "How many clean labels?",
        _on_data,
        _each(clean_per_class=(5, 10, 25), method=METHODS_FEW),
        {"method": "GenKL"},
        seeds=3,
        tuned="method",
    ),
    "noise-rate": Study(
        "How much label noise?",
        _on_data,
        _each(noise_kind=("symmetric", "pair"), label_noise=(0.0, 0.2, 0.4), method=METHODS_FEW),
        {"method": "GenKL"},
        data=("clothing",),
        seeds=3,
        tuned="method",
    ),
    "pixels": Study(
        "Does the backbone's resolution matter?",
        _on_data,
        _each(pixels=(64, 96, 160, 224), method=METHODS_FEW),
        {"method": "GenKL"},
        data=("clothing",),
        seeds=3,
        tuned="method",
    ),
    "network": Study(
        "Does the network matter?",
        _network,
        _each(network=("small_cnn", "small_resnet"), method=METHODS_FEW),
        {"method": "GenKL"},
        data=("digits",),
        seeds=3,
        tuned="method",
    ),
    "dials": Study(
        "Which dials does GenKL hang on?",
        _dials,
        _each(clean_per_class=(5, 25), omega=(1.0, 8.0, 32.0), given_weight=WEIGHTS),
        {"omega": 32.0, "given_weight": "class ratio"},
        data=("clothing",),
        seeds=3,
    ),
    "published": Study(
        "What do the published bugs do?",
        _published,
        _each(switch=SWITCHES),
        {"switch": "NONE"},
        seeds=3,
    ),
}
"""The ablations by name."""


def method_of(study: str, change: Mapping[str, Any]) -> str | None:
    """The method whose settings a change is run with; None where only the default is."""
    named = STUDIES[study].tuned
    if named == "learner":
        return {"left out": "given labels + fine-tuning", "uniform": "GenKL"}[change["learner"]]
    return change["method"] if named == "method" else named


def ablation_cells(
    data: Sequence[str], chosen: Chosen, names: Sequence[str] | None = None
) -> list[Cell]:
    """Every change of every study, with the default and the chosen settings where it is tuned.

    Args:
        data: of `CASES`.
        chosen: tuned settings.
        names: of studies; None is all.
    """
    cells = []
    for study in STUDIES if names is None else names:
        asked = STUDIES[study]
        for name, seed in product(asked.data, SEEDS[: asked.seeds]):
            for change in asked.changes if name in data else ():
                cell = {"study": study, "data": name, **change, "seed": seed}
                method = method_of(study, change)
                runs = [{}] if method is None else settings_to_run(name, method, chosen)
                if study == "finding":  # one question more would be too many
                    runs = runs[-1:]
                cells += [Cell({**cell, **({"settings": own} if own else {})}) for own in runs]
    return cells
