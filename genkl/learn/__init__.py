"""Training: phases, examples, batches, trainer, checkpoints, the GenKL iteration, the launcher."""

from genkl.learn.batches import Draw, draw_batches
from genkl.learn.checkpoint import Checkpoint
from genkl.learn.config import GenKLConfig
from genkl.learn.examples import Examples, join_inputs
from genkl.learn.folder import RunFolder, read_log
from genkl.learn.iteration import Lesson
from genkl.learn.phase import OPTIMIZERS, SCHEDULES, Phase
from genkl.learn.result import FitResult, Round, Run, round_to_dict, run_to_dict
from genkl.learn.rules import (
    Decision,
    IdentifyRule,
    divergence_rule,
    entropy_rule,
    flag_nothing,
)
from genkl.learn.run import (
    PUBLISHED_RUN,
    GenKLOptions,
    RunOptions,
    pretrain_models,
    run_genkl,
)
from genkl.learn.trainer import (
    PUBLISHED_TRAINING,
    FitOptions,
    Watch,
    fit,
    fit_together,
)
from genkl.storage import plain

__all__ = [
    "OPTIMIZERS",
    "PUBLISHED_RUN",
    "PUBLISHED_TRAINING",
    "SCHEDULES",
    "Checkpoint",
    "Decision",
    "Draw",
    "Examples",
    "FitOptions",
    "FitResult",
    "GenKLConfig",
    "GenKLOptions",
    "IdentifyRule",
    "Lesson",
    "Phase",
    "Round",
    "Run",
    "RunFolder",
    "RunOptions",
    "Watch",
    "divergence_rule",
    "draw_batches",
    "entropy_rule",
    "fit",
    "fit_together",
    "flag_nothing",
    "join_inputs",
    "plain",
    "pretrain_models",
    "read_log",
    "round_to_dict",
    "run_genkl",
    "run_to_dict",
]
