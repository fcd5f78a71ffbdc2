"""``genkl run``: the whole method on a data set, in a folder that can be gone on with."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genkl.cli.data import DatasetOptions, load
from genkl.cli.options import Pairs, add_command, print_json, typed
from genkl.data.registry import DATASETS, FOLDER

if TYPE_CHECKING:
    from genkl.learn import GenKLConfig, Run

SHORT = {
    "given-labels-tuned": "given labels + fine-tuning",
    "clean-alone": "clean set alone",
}
"""Names on the command line that are shorter than the method's own."""

PLAIN = "given labels"
"""What a method has to beat on images of your own, with the same network and settings."""

SHARED = ("seed", "resume", "checkpoint_every", "dry_run")

DESCRIPTION = """\
Run the whole method: pre-train, identify, relabel, train with three losses, fine-tune, repeat.
Everything is kept in a folder: finished models, predictions, logs (CSV, JSON, TensorBoard) and
checkpoints. A run that was cut off goes on with --resume, to the same numbers. On a folder of your
own, the given labels as they are teach a network, too, and both are compared."""

EPILOG = """\
examples:
  genkl run --preset digits
  genkl run --preset photographs --dataset clothing-dataset -o label_noise 0.3
  genkl run --preset solar-cells --method genkl-calibrated
  genkl run --preset clothing1m --data-root /data --precision bf16-mixed --dry-run
  genkl run --preset clothing1m --data-root /data --resume
  torchrun --nproc-per-node 8 -m genkl run --preset clothing1m --data-root /data
on Slurm, start one task per GPU: srun genkl run ..."""


class SettingsOptions:
    """Settings.

    Attributes:
        preset: settings: the paper's for its three data sets, or small ones
        dataset (NAME): a data set of 'genkl data list' (default: the preset's own)
        seed (N): of the splits, weights, batches and mixing (default: %(default)s)
        rounds (N): at most so many (default: the preset's, 3)
        changes (--set KEY VALUE): change a setting of GenKLConfig, such as --set alpha 0.9 or
            --set train.steps 100; can be repeated (default: none)
    """

    preset: Literal[
        "digits", "solar-cells", "photographs", "clothing1m", "food101n", "mini-webvision"
    ]
    dataset: str | None = None
    seed: int = 0
    rounds: int | None = None
    changes: Pairs


class MethodOptions:
    """Method.

    Attributes:
        method (NAME): a method of genkl.METHODS, in lower case and with hyphens, such as
            genkl-calibrated, given-labels or gold-loss-correction (default: %(default)s)
        identify: the rule that flags (default: %(default)s)
        losses: row losses: the paper's, or one of the ablations for all roles (default:
            %(default)s)
        network (NAME): of torchvision or timm, trained from end to end (default: the preset's; for
            small presets a head on frozen features or a small network)
        backbone (NAME): of torchvision or timm, frozen: heads learn from its features (default:
            none for the paper's presets, EfficientNet-Lite0 for other photographs)
        weights (FILE|default|random): of the network or backbone: a file (.safetensors, or tensors
            written by torch), the framework's own, or random ones (default: as the paper starts;
            'default' for others)
    """

    method: str = "genkl"
    identify: Literal["divergence", "entropy", "none"] = "divergence"
    losses: Literal["paper", "ce", "double-hot", "mse", "mae", "kl", "gce", "sce"] = "paper"
    network: str | None = None
    backbone: str | None = None
    weights: str | None = None


class MachineOptions:
    """Machine.

    Attributes:
        accelerator: (default: %(default)s, a GPU if there is one)
        devices (N): processes, each with its own GPU; torchrun and Slurm say it themselves
            (default: %(default)s)
        precision: (default: %(default)s)
        compile: use torch.compile (default: don't)
        workers (N): processes that decode images, for each device (default: what suits the
            machine)
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    workers: int | None = None


class FolderOptions:
    """What is kept.

    Attributes:
        run_dir (FOLDER): where the run is kept (default: runs/PRESET-DATASET-METHOD-seedN)
        resume: go on with the run in --run-dir (default: refuse)
        checkpoint_every (STEPS): so many are lost at most (default: %(default)s)
        dry_run: print the resolved configuration and the plan, and do nothing (default: run)
        json: print the configuration, or the result, for programs (default: for people)
    """

    run_dir: Path | None = None
    resume: bool = False
    checkpoint_every: int = 500
    dry_run: bool = False
    json: bool = False


def add_parser(areas: Any) -> None:
    """Add the command, see `add_command`."""
    groups = (SettingsOptions, DatasetOptions, MethodOptions, MachineOptions, FolderOptions)
    texts = {"help": "run the whole method on a data set", "description": DESCRIPTION}
    parser = add_command(areas, "run", groups, epilog=EPILOG, **texts)
    spoken = {"num_workers": "--workers", "max_rounds": "--rounds"}
    parser.set_defaults(command=_run, spoken=spoken)


def _run(options: argparse.Namespace) -> None:
    import genkl
    from genkl.learn.folder import is_used

    name, method = options.dataset or options.preset, method_of(options.method)
    if name not in DATASETS:
        raise ValueError(f"--dataset is {name!r}; name one of: {', '.join(DATASETS)}")
    if method != "GenKL" and (options.identify, options.losses) != ("divergence", "paper"):
        raise ValueError(
            f"--method {options.method} has no rule and no losses to choose; leave --identify and "
            "--losses out"
        )
    usual = f"{options.preset}-{name}-{options.method}-seed{options.seed}"
    run_dir = options.run_dir or Path("runs") / usual
    engine = genkl.Engine(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        compile=options.compile,
        num_workers=options.workers,
    )
    if not options.dry_run:
        _refuse_used(run_dir, options.resume)
        engine.launch()
    preset = getattr(genkl, options.preset.upper().replace("-", "_"))
    make_model, backbone = networks(options, preset)
    dataset, _ = load(name, options)
    config = configuration(options, preset, dataset, is_frozen=backbone is not None)
    settings = {"make_model": make_model, "backbone": backbone, "engine": engine}
    settings |= {"run_dir": run_dir, **{key: getattr(options, key) for key in SHARED}}
    run = _trained(method, dataset, config, options, settings)
    if run is None:
        _show_plan(options, method, dataset, config, **settings)
        return
    plain = None
    if _is_compared(name, method):
        beside = run_dir / "given-labels"
        settings |= {"run_dir": beside, "resume": is_used(beside)}
        plain = _trained(PLAIN, dataset, config, options, settings)
    if engine.is_first:
        _show_result(run, run_dir, options.json)
        if plain:
            _show_comparison(run, plain, len(dataset.test))


def _is_compared(name: str, method: str) -> bool:
    """Whether the labels as they are teach a network, too: on a folder of one's own."""
    return name == FOLDER.name and method != PLAIN


def _trained(
    method: str, dataset: Any, config: GenKLConfig, options: argparse.Namespace, settings: Any
) -> Run | None:
    import genkl

    if method != "GenKL":
        return genkl.run_method(method, dataset, config, **settings)
    rules = {"entropy": genkl.entropy_rule(config.max_flag_rate), "none": genkl.flag_nothing}
    own = {"identify": rules.get(options.identify), "losses": genkl.losses_of(options.losses)}
    return genkl.run_genkl(dataset, config, **own, **settings)


def method_of(name: str) -> str:
    """The method with this name, or with this one on the command line.

    Raises:
        ValueError: none has.
    """
    from genkl.baselines import METHODS

    known = {re.sub("[^a-z0-9]+", "-", method.lower()): method for method in METHODS} | SHORT
    if name not in {**known, **METHODS}:
        raise ValueError(f"--method is {name!r}; name one of: {', '.join(known)}")
    return known.get(name, name)


def networks(options: argparse.Namespace, preset: Any) -> tuple[Any, Any]:
    """The factory of models, and the frozen backbone or None or "auto".

    Raises:
        ValueError: options that exclude one another, or an unknown network.
    """
    import genkl

    if options.network and options.backbone:
        raise ValueError("--network is trained and --backbone is frozen; name one of the two")
    given = {None: "default", "random": None}.get(options.weights, options.weights)
    if options.backbone is not None:
        return genkl.default_model, genkl.get_backbone(options.backbone, given)
    if isinstance(preset, genkl.PaperPreset):
        given = "preset" if options.weights is None else given
        return preset.model_factory(options.network, given), None
    if options.network is not None:
        return genkl.finetunable(options.network, given), None
    if options.weights is not None:
        raise ValueError(f"--weights is {options.weights!r}; name their --network or --backbone")
    return genkl.default_model, "auto"


def configuration(
    options: argparse.Namespace, preset: Any, dataset: Any, is_frozen: bool
) -> GenKLConfig:
    """The preset's settings for a data set, with what --rounds and --set change.

    Features of a frozen backbone are computed once, from images without random transforms.

    Raises:
        ValueError: no such setting, or a value that it can't have.
    """
    import genkl

    config = preset if isinstance(preset, genkl.GenKLConfig) else preset.config(dataset)
    if options.rounds is not None:
        config = dataclasses.replace(config, max_rounds=options.rounds)
    if is_frozen and config.train_transforms:
        config = dataclasses.replace(config, train_transforms=(), test_transforms=())
    return changed(config, dict(options.changes))


def changed(config: Any, changes: dict[str, str], within: str = "") -> Any:
    """A frozen record with settings replaced, all at once; a key may be dotted.

    Raises:
        ValueError: no such setting, or a value that it can't have.
    """
    from genkl.checks import check_choice

    kinds = {field.name: field.type for field in dataclasses.fields(config)}
    new: dict[str, Any] = {}
    parts: dict[str, dict[str, str]] = {}
    for key, text in changes.items():
        name, _, rest = key.partition(".")
        check_choice("setting", name, kinds)
        option, current = f"--set {within}{key}", getattr(config, name)
        if dataclasses.is_dataclass(current):
            if not rest:
                first = dataclasses.fields(current)[0].name
                raise ValueError(f"{option}: set one of its parts, such as {key}.{first}")
            parts.setdefault(name, {})[rest] = text
            continue
        if rest:
            raise ValueError(f"{option}: {name} has no parts; set it as a whole")
        value = typed(option, kinds[name], text)
        if isinstance(value, list):
            value = tuple(tuple(part) if isinstance(part, list) else part for part in value)
        if isinstance(value, tuple) != isinstance(current, tuple):
            raise ValueError(f"{option} is {text!r}; it must be of the kind of {current!r}")
        new[name] = value
    new |= {name: changed(getattr(config, name), own, f"{name}.") for name, own in parts.items()}
    try:
        return dataclasses.replace(config, **new)
    except TypeError as error:
        raise ValueError(f"--set {', '.join(new)}: a value of a wrong kind ({error})") from error


def _refuse_used(run_dir: Path, resume: bool) -> None:
    """Say so before data is loaded, not after; the first of several processes does."""
    from genkl.learn.folder import is_used

    ranks = {os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")}
    if ranks == {"0"} and is_used(run_dir) and not resume:
        raise FileExistsError(
            f"--run-dir {run_dir} is in use; add --resume to go on with its run, or name a new one"
        )


def _show_plan(
    options: argparse.Namespace, method: str, dataset: Any, config: GenKLConfig, **settings: Any
) -> None:
    """Print settings and amounts of work."""
    from genkl.learn.folder import describe, is_used

    engine, backbone, run_dir = (settings[name] for name in ("engine", "backbone", "run_dir"))
    facts = {
        "preset": options.preset,
        "dataset": dataset.name,
        "classes": dataset.num_classes,
        "method": method,
        "seed": options.seed,
        "model": describe(settings["make_model"]),
        "frozen backbone": getattr(backbone, "name", backbone),
        "losses": options.losses,
        "identify": options.identify,
        "device": str(engine.device),
        "processes": engine.world_size,
        "run_dir": str(run_dir),
    } | ({"compared with": PLAIN} if _is_compared(dataset.name, method) else {})
    more = {
        "instances": {name: len(split) for name, split in dataset.splits().items()},
        "config": dataclasses.asdict(config),
        "engine": dataclasses.asdict(engine),
        "plan": _amounts(method, config),
        "run_dir in use": is_used(run_dir),
        "resume": options.resume,
    }
    if options.json:
        print_json(facts | more)
        return
    for key, value in facts.items():
        print(f"{key + ':':<17} {value}")
    if more["run_dir in use"] and not options.resume:
        print(f"{'':<17} in use: add --resume to go on with its run, or name a new one")
    counts = ", ".join(f"{count:,} {split}" for split, count in more["instances"].items())
    print(f"{'instances:':<17} {counts}")
    print("\nsettings (change one with --set KEY VALUE):")
    for key, value in more["config"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {inner}" for name, inner in value.items())
        print(f"  {key + ':':<17} {value}")
    _show_amounts(more["plan"])


def _amounts(method: str, config: GenKLConfig) -> list[dict[str, Any]]:
    """Models, steps and instances of each phase, if no round is spared."""
    rounds = config.max_rounds if method == "GenKL" else 1
    phases = [
        ("pretrain", config.pretrain, config.first_ensemble),
        ("train", config.train, config.ensemble * rounds),
        ("finetune", config.finetune, config.ensemble * rounds),
    ]
    return [
        {
            "phase": name,
            "models": models,
            "steps each": phase.steps,
            "instances each": phase.steps * (phase.batch_size + (phase.clean_batch_size or 0)),
        }
        for name, phase, models in phases[method != "GenKL" :]
    ]


def _show_amounts(plan: list[dict[str, Any]]) -> None:
    print("\nplan, if no round is spared:")
    print(f"  {'phase':<10} {'models':>6} {'steps each':>11} {'instances each':>15} {'in all':>15}")
    total = 0
    for row in plan:
        in_all = row["models"] * row["instances each"]
        total += in_all
        print(
            f"  {row['phase']:<10} {row['models']:>6} {row['steps each']:>11,} "
            f"{row['instances each']:>15,} {in_all:>15,}"
        )
    print(f"  {total:,} instances pass through a network forwards and backwards")


def _show_result(run: Run, run_dir: Path, as_json: bool) -> None:
    if as_json:
        print((run_dir / "record.json").read_text("utf-8"))
        return
    sys.stderr.flush()
    print(f"{'round':>5} {'flagged':>8} {'validation':>11} {'test':>7} {'ensemble test':>14}")
    for done in run.rounds:
        mark = "  chosen on validation" if done is run.best else ""
        print(
            f"{done.index:>5} {done.flagged:>8.1%} {done.val_accuracy:>11.2%} "
            f"{done.test_accuracy:>7.2%} {done.ensemble_test_accuracy:>14.2%}{mark}"
        )
    print(f"{run.clean_labels} clean labels; everything is in {run_dir}")


def _show_comparison(run: Run, plain: Run, count: int) -> None:
    """Both on so many test images, with 95 % intervals (Wilson), for people: on stderr."""
    from scipy.stats import binomtest

    own, other = run.best.test_accuracy, plain.best.test_accuracy
    ends = []
    for name, share in ((run.method, own), (f"{plain.method} (as the table has them)", other)):
        ends.append(binomtest(round(share * count), count).proportion_ci(method="wilson"))
        interval = f"[{ends[-1].low:.1%}, {ends[-1].high:.1%}]"
        print(f"{name}: {share:.1%} of {count} test images {interval}", file=sys.stderr)
    if own <= other:
        print(f"! {run.method} is not better here than the labels as they are", file=sys.stderr)
    elif ends[0].low <= other:
        print("! the lead is no more than chance may give: test on more images", file=sys.stderr)
