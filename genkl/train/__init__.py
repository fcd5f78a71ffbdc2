"""How does a model learn? Phases, examples, one loop, and checkpoints to go on from."""

from genkl.train.batches import Draw, draw_batches
from genkl.train.checkpoint import Checkpoint
from genkl.train.examples import Examples, join_inputs
from genkl.train.loop import PUBLISHED_TRAINING, FitResult, Watch, fit
from genkl.train.phase import OPTIMIZERS, SCHEDULES, Phase

__all__ = [
    "OPTIMIZERS",
    "PUBLISHED_TRAINING",
    "SCHEDULES",
    "Checkpoint",
    "Draw",
    "Examples",
    "FitResult",
    "Phase",
    "Watch",
    "draw_batches",
    "fit",
    "join_inputs",
]
