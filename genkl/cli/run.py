"""``genkl run``: the whole method on a data set, in a folder that can be gone on with."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genkl.data import NoisyDataset
    from genkl.engine import Engine
    from genkl.learn import GenKLConfig, Run

PRESETS = {
    "digits": "DIGITS",
    "solar-cells": "SOLAR_CELLS",
    "photographs": "PHOTOGRAPHS",
    "clothing1m": "CLOTHING1M",
    "food101n": "FOOD101N",
    "mini-webvision": "MINI_WEBVISION",
}
"""Name on the command line -> name in `genkl`."""

METHODS = {
    "genkl": "GenKL",
    "given-labels": "given labels",
    "given-labels-tuned": "given labels + fine-tuning",
    "clean-alone": "clean set alone",
}
RULES = ("divergence", "entropy", "none")
LOSSES = ("paper", "ce", "double-hot", "mse", "mae", "kl", "gce", "sce")

DESCRIPTION = """\
Run the whole method: pre-train, identify, relabel, train with three losses, fine-tune, repeat.
Everything is kept in a folder: finished models, predictions, logs (CSV, JSON, TensorBoard) and
checkpoints. A run that was cut off goes on with --resume, to the same numbers."""

EPILOG = """\
examples:
  genkl run --preset digits
  genkl run --preset photographs --dataset clothing-dataset -o label_noise 0.3
  genkl run --preset clothing1m --data-root /data --precision bf16-mixed --dry-run
  genkl run --preset clothing1m --data-root /data --resume
  torchrun --nproc-per-node 8 -m genkl run --preset clothing1m --data-root /data
on Slurm, start one task per GPU: srun genkl run ..."""


def add_parser(areas: Any) -> None:
    """Add the command.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = areas.add_parser(
        "run",
        help="run the whole method on a data set",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_run)
    _add_data(parser.add_argument_group("data"))
    _add_method(parser.add_argument_group("method"))
    _add_machine(parser.add_argument_group("machine"))
    _add_folder(parser.add_argument_group("what is kept"))


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--preset", required=True, choices=PRESETS,
        help="settings: the paper's for its three data sets, or small ones: " + ", ".join(PRESETS),
    )  # fmt: skip
    group.add_argument(
        "--dataset", metavar="NAME",
        help="a data set of 'genkl data list' (default: the preset's own)",
    )  # fmt: skip
    group.add_argument(
        "--data-root", metavar="FOLDER",
        help="your data folder (default: $GENKL_DATA, then the cache)",
    )  # fmt: skip
    group.add_argument(
        "-o", dest="options", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="an option of the data set's loader, such as -o noisy_limit 10000; can be repeated "
        "(default: none)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="of the splits, weights, batches and mixing (default: %(default)s)",
    )  # fmt: skip


def _add_method(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--method", choices=METHODS, default="genkl",
        help="GenKL or a baseline (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--rounds", type=int, metavar="N", help="at most so many (default: the preset's, 3)"
    )
    group.add_argument(
        "--set", dest="changes", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="change a setting of GenKLConfig, such as --set alpha 0.9 or --set train.steps 100; "
        "can be repeated (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--identify", choices=RULES, default="divergence",
        help="the rule that flags (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--losses", choices=LOSSES, default="paper",
        help="row losses: the paper's, or one of the ablations for all roles (default: "
        "%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--network", metavar="NAME",
        help="of torchvision or timm, trained from end to end (default: the preset's; for small "
        "presets a head on frozen features or a small network)",
    )  # fmt: skip
    group.add_argument(
        "--backbone", metavar="NAME",
        help="of torchvision or timm, frozen: heads learn from its features (default: none for "
        "the paper's presets, EfficientNet-Lite0 for other photographs)",
    )  # fmt: skip
    group.add_argument(
        "--weights", metavar="FILE|default|random",
        help="of the network or backbone: a file (.safetensors, or tensors written by torch), the "
        "framework's own, or random ones (default: as the paper starts; 'default' for others)",
    )  # fmt: skip


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--accelerator", choices=("auto", "cpu", "cuda", "mps"), default="auto",
        help="(default: %(default)s, a GPU if there is one)",
    )  # fmt: skip
    group.add_argument(
        "--devices", type=int, default=1, metavar="N",
        help="processes, each with its own GPU; torchrun and Slurm say it themselves (default: "
        "%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--precision", choices=("32-true", "bf16-mixed", "16-mixed"), default="32-true",
        help="(default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--compile", action="store_true", help="use torch.compile (default: don't)")
    group.add_argument(
        "--workers", type=int, metavar="N",
        help="processes that decode images, for each device (default: what suits the machine)",
    )  # fmt: skip


def _add_folder(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--run-dir", type=Path, metavar="FOLDER",
        help="where the run is kept (default: runs/PRESET-DATASET-METHOD-seedN)",
    )  # fmt: skip
    group.add_argument(
        "--resume", action="store_true", help="go on with the run in --run-dir (default: refuse)"
    )
    group.add_argument(
        "--checkpoint-every", type=int, default=500, metavar="STEPS",
        help="so many are lost at most (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--dry-run", action="store_true",
        help="print the resolved configuration and the plan, and do nothing (default: run)",
    )  # fmt: skip
    group.add_argument(
        "--json", action="store_true",
        help="print the configuration, or the result, for programs (default: for people)",
    )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a command line comes to, before anything is computed."""

    options: argparse.Namespace
    dataset: NoisyDataset
    config: GenKLConfig
    engine: Engine
    make_model: Any
    backbone: Any
    losses: Any
    identify: Any
    run_dir: Path

    def facts(self) -> dict[str, Any]:
        """Settings and amounts of work, for printing."""
        from genkl.learn.folder import describe

        config, data = self.config, self.dataset
        method = METHODS[self.options.method]
        phases = {
            "train": (config.train, config.ensemble),
            "finetune": (config.finetune, config.ensemble),
        }
        rounds = 1
        if method == "GenKL":
            phases = {"pretrain": (config.pretrain, config.first_ensemble), **phases}
            rounds = config.max_rounds
        backbone = self.backbone
        if backbone is not None and not isinstance(backbone, str):
            backbone = backbone.name
        return {
            "preset": self.options.preset,
            "dataset": data.name,
            "instances": {name: len(split) for name, split in data.splits().items()},
            "classes": data.num_classes,
            "method": method,
            "seed": self.options.seed,
            "model": describe(self.make_model),
            "frozen backbone": backbone,
            "losses": self.options.losses,
            "identify": self.options.identify,
            "config": dataclasses.asdict(config),
            "engine": dataclasses.asdict(self.engine),
            "processes": self.engine.world_size,
            "device": str(self.engine.device),
            "plan": [
                {
                    "phase": name,
                    "models": count if name == "pretrain" else count * rounds,
                    "steps each": phase.steps,
                    "instances each": phase.steps
                    * (phase.batch_size + (phase.clean_batch_size or 0)),
                }
                for name, (phase, count) in phases.items()
            ],
            "run_dir": str(self.run_dir),
            "run_dir in use": in_use(self.run_dir),
            "resume": self.options.resume,
        }


def _run(options: argparse.Namespace) -> int:
    plan = resolve(options)
    if options.dry_run:
        _show_plan(plan)
        return 0
    run = execute(plan)
    if plan.engine.is_first:
        _show_result(plan, run)
    return 0


def resolve(options: argparse.Namespace) -> Plan:
    """From a command line to everything that `run_genkl` takes; the data set is opened.

    Raises:
        ValueError: an option that doesn't fit the others or the data.
        DataNotFoundError: the data set isn't here; says how to get it.
    """
    import genkl
    from genkl.data.registry import DATASETS, load_dataset
    from genkl.engine import Engine

    name = options.dataset or options.preset
    if name not in DATASETS:
        raise ValueError(f"--dataset is {name!r}; name one of: {', '.join(DATASETS)}")
    method = METHODS[options.method]
    if method != "GenKL" and (options.identify, options.losses) != ("divergence", "paper"):
        raise ValueError(f"--method {options.method} has no rule and no losses to choose; leave "
                         "--identify and --losses out")  # fmt: skip
    if options.network and options.backbone:
        raise ValueError("--network is trained and --backbone is frozen; name one of the two")
    engine = Engine(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        compile=options.compile,
        num_workers=options.workers,
    )
    usual = f"{options.preset}-{name}-{options.method}-seed{options.seed}"
    run_dir = options.run_dir or Path("runs") / usual
    if not options.dry_run:
        _check_folder(run_dir, options.resume)
        engine.launch()
    chosen = {key: _value(text) for key, text in options.options}
    if options.data_root is not None and DATASETS[name].source.folders:
        chosen["data_root"] = options.data_root
    dataset, _ = load_dataset(name, seed=options.seed, **chosen)
    preset = getattr(genkl, PRESETS[options.preset])
    config = preset if isinstance(preset, genkl.GenKLConfig) else preset.config(dataset)
    if options.rounds is not None:
        config = dataclasses.replace(config, max_rounds=options.rounds)
    for key, text in options.changes:
        config = changed(config, key, _value(text))
    make_model, backbone = _networks(options, preset)
    if backbone is not None and config.train_transforms:
        config = dataclasses.replace(config, train_transforms=(), test_transforms=())
    return Plan(
        options,
        dataset,
        config,
        engine,
        make_model,
        backbone,
        genkl.losses_of(options.losses),
        {
            "divergence": None,
            "entropy": genkl.entropy_rule(config.max_flag_rate),
            "none": genkl.flag_nothing,
        }[options.identify],
        run_dir,
    )


def _networks(options: argparse.Namespace, preset: Any) -> tuple[Any, Any]:
    """The factory of models, and the frozen backbone or None or "auto"."""
    import genkl

    weights = options.weights
    if weights == "random":
        weights = None
    if options.backbone is not None:
        chosen = "default" if options.weights is None else weights
        return genkl.default_model, genkl.get_backbone(options.backbone, chosen)
    if isinstance(preset, genkl.PaperPreset):
        chosen = "preset" if options.weights is None else weights
        return preset.model_factory(options.network, chosen), None
    if options.network is not None:
        chosen = "default" if options.weights is None else weights
        return genkl.finetunable(options.network, chosen), None
    if options.weights is not None:
        raise ValueError(f"--weights is {options.weights!r}; name their --network or --backbone")
    return genkl.default_model, "auto"


def execute(plan: Plan) -> Run:
    """Run it, in its folder."""
    import genkl

    options = plan.options
    shared: dict[str, Any] = {
        "seed": options.seed,
        "make_model": plan.make_model,
        "backbone": plan.backbone,
        "engine": plan.engine,
        "run_dir": plan.run_dir,
        "resume": options.resume and (plan.run_dir / "run.json").exists(),
        "checkpoint_every": options.checkpoint_every,
    }
    method = METHODS[options.method]
    if method != "GenKL":
        return genkl.run_baseline(plan.dataset, plan.config, method, **shared)
    return genkl.run_genkl(
        plan.dataset, plan.config, identify=plan.identify, losses=plan.losses, **shared
    )


def changed(config: Any, key: str, value: Any) -> Any:
    """A frozen record with one setting replaced; ``key`` may be dotted.

    Raises:
        ValueError: no such setting, or a value that it can't have.
    """
    from genkl.checks import check_choice

    name, _, rest = key.partition(".")
    names = [field.name for field in dataclasses.fields(config)]
    check_choice("setting", name, names)
    current = getattr(config, name)
    if rest:
        if not dataclasses.is_dataclass(current):
            raise ValueError(f"--set {key}: {name} has no parts; set it as a whole")
        value = changed(current, rest, value)
    elif dataclasses.is_dataclass(current):
        first = dataclasses.fields(current)[0].name
        raise ValueError(f"--set {key}: set one of its parts, such as {key}.{first}")
    elif isinstance(value, list):
        value = tuple(tuple(one) if isinstance(one, list) else one for one in value)
    kinds = (int, float) if isinstance(current, int | float) else type(current)
    if current is not None and value is not None and not isinstance(value, kinds):
        raise ValueError(f"--set {key} is {value!r}; it must be of the kind of {current!r}")
    try:
        return dataclasses.replace(config, **{name: value})
    except TypeError as error:
        raise ValueError(f"--set {key} is {value!r}, of a wrong kind ({error})") from error


def in_use(run_dir: Path) -> bool:
    """Whether there is anything in the folder."""
    return run_dir.exists() and any(run_dir.iterdir())


def _check_folder(run_dir: Path, resume: bool) -> None:
    """Say so before data is loaded, not after; the first of several processes does."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    if any(rank != "0" for rank in ranks):
        return
    if in_use(run_dir) and not resume:
        raise FileExistsError(
            f"--run-dir {run_dir} is in use; add --resume to go on with its run, or name a new one"
        )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _show_plan(plan: Plan) -> None:
    facts = plan.facts()
    if plan.options.json:
        print(json.dumps(facts, indent=1, default=str))
        return
    for key in ("preset", "dataset", "classes", "method", "seed", "model", "frozen backbone",
                "losses", "identify", "device", "processes", "run_dir"):  # fmt: skip
        print(f"{key + ':':<17} {facts[key]}")
    if facts["run_dir in use"] and not facts["resume"]:
        print(f"{'':<17} in use: add --resume to go on with its run, or name a new one")
    counts = ", ".join(f"{count:,} {name}" for name, count in facts["instances"].items())
    print(f"{'instances:':<17} {counts}")
    print("\nsettings (change one with --set KEY VALUE):")
    for key, value in facts["config"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner} {one}" for inner, one in value.items())
        print(f"  {key + ':':<17} {value}")
    print("\nplan, if no round is spared:")
    print(f"  {'phase':<10} {'models':>6} {'steps each':>11} {'instances each':>15} {'in all':>15}")
    total = 0
    for row in facts["plan"]:
        whole = row["models"] * row["instances each"]
        total += whole
        print(
            f"  {row['phase']:<10} {row['models']:>6} {row['steps each']:>11,} "
            f"{row['instances each']:>15,} {whole:>15,}"
        )
    print(f"  {total:,} instances pass through a network forwards and backwards")


def _show_result(plan: Plan, run: Run) -> None:
    if plan.options.json:
        print((plan.run_dir / "record.json").read_text("utf-8"))
        return
    sys.stderr.flush()
    print(f"{'round':>5} {'flagged':>8} {'validation':>11} {'test':>7} {'ensemble test':>14}")
    for one in run.rounds:
        mark = "  chosen on validation" if one is run.best else ""
        print(
            f"{one.index:>5} {one.flagged:>8.1%} {one.val_accuracy:>11.2%} "
            f"{one.test_accuracy:>7.2%} {one.ensemble_test_accuracy:>14.2%}{mark}"
        )
    print(f"{run.clean_labels} clean labels; everything is in {plan.run_dir}")
