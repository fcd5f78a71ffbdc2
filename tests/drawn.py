"""What tests of plots and figures draw."""

import numpy as np
import pandas as pd

from genkl import Truth

TRUTH = Truth(np.repeat([0, 1, 2, 3], 5), np.zeros(20, dtype=int), "by hand")
SCORES = np.linspace(0, 1, 20)
FRAME = pd.DataFrame(
    {
        "method": ["GenKL", "GenKL", "given labels", "given labels"],
        "seed": [0, 1, 0, 1],
        "index": [1, 2, 1, 2],
        "test_accuracy": [0.9, 0.94, 0.8, 0.8],
    }
)
