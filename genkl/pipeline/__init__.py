"""How does it all fit together? The GenKL iteration, its settings, rules, results, and folder."""

from genkl.pipeline.config import GenKLConfig
from genkl.pipeline.folder import RunFolder, plain
from genkl.pipeline.iteration import (
    BASELINES,
    PUBLISHED_RUN,
    Lesson,
    pretrain_models,
    run_baseline,
    run_genkl,
    run_once,
)
from genkl.pipeline.log import read_log
from genkl.pipeline.result import Round, Run, round_to_dict, run_to_dict
from genkl.pipeline.rules import (
    Decision,
    IdentifyRule,
    divergence_rule,
    entropy_rule,
    flag_nothing,
)

__all__ = [
    "BASELINES",
    "PUBLISHED_RUN",
    "Decision",
    "GenKLConfig",
    "IdentifyRule",
    "Lesson",
    "Round",
    "Run",
    "RunFolder",
    "divergence_rule",
    "entropy_rule",
    "flag_nothing",
    "plain",
    "pretrain_models",
    "read_log",
    "round_to_dict",
    "run_baseline",
    "run_genkl",
    "run_once",
    "run_to_dict",
]
