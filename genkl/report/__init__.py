"""The report on a folder of images or a table of predictions: one HTML page, and a table.

`assess` says of every instance what it looks like and why; `predict_folder` gets the predictions
from the images, `assess_folder` does both; `write_page` and `write_table` write it down.
`apply_decisions` puts what people decided into their table of labels.
"""

from genkl.report.assessment import KINDS, Assessment, Criteria, Thresholds, assess
from genkl.report.decisions import apply_decisions, merge_decisions, read_decisions
from genkl.report.folder import FolderPredictions, assess_folder, held_out_probs, predict_folder
from genkl.report.page import write_page
from genkl.report.table import write_table

__all__ = [
    "KINDS",
    "Assessment",
    "Criteria",
    "FolderPredictions",
    "Thresholds",
    "apply_decisions",
    "assess",
    "assess_folder",
    "held_out_probs",
    "merge_decisions",
    "predict_folder",
    "read_decisions",
    "write_page",
    "write_table",
]
