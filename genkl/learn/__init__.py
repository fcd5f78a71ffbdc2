"""Training: phases, examples, the loop, checkpoints, and the GenKL iteration."""

from genkl.learn.batches import Draw, draw_batches
from genkl.learn.checkpoint import Checkpoint
from genkl.learn.config import GenKLConfig
from genkl.learn.examples import Examples, join_inputs
from genkl.learn.folder import RunFolder, plain
from genkl.learn.iteration import (
    BASELINES,
    PUBLISHED_RUN,
    Lesson,
    pretrain_models,
    run_baseline,
    run_genkl,
    run_once,
)
from genkl.learn.log import read_log
from genkl.learn.loop import PUBLISHED_TRAINING, FitResult, Watch, fit
from genkl.learn.phase import OPTIMIZERS, SCHEDULES, Phase
from genkl.learn.result import Round, Run, round_to_dict, run_to_dict
from genkl.learn.rules import (
    Decision,
    IdentifyRule,
    divergence_rule,
    entropy_rule,
    flag_nothing,
)

__all__ = [
    "BASELINES",
    "OPTIMIZERS",
    "PUBLISHED_RUN",
    "PUBLISHED_TRAINING",
    "SCHEDULES",
    "Checkpoint",
    "Decision",
    "Draw",
    "Examples",
    "FitResult",
    "GenKLConfig",
    "IdentifyRule",
    "Lesson",
    "Phase",
    "Round",
    "Run",
    "RunFolder",
    "Watch",
    "divergence_rule",
    "draw_batches",
    "entropy_rule",
    "fit",
    "flag_nothing",
    "join_inputs",
    "plain",
    "pretrain_models",
    "read_log",
    "round_to_dict",
    "run_baseline",
    "run_genkl",
    "run_once",
    "run_to_dict",
]
