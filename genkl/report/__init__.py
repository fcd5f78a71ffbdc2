"""The report on a folder of images or a table of predictions: one HTML page, and a table.

`assess` says of every instance what it looks like and why; `assess_folder` gets the predictions
from the images first; `write_page` and `write_table` write it down.
"""

from genkl.report.assessment import KINDS, Assessment, Criteria, Thresholds, assess
from genkl.report.folder import assess_folder, held_out_probs
from genkl.report.page import write_page
from genkl.report.table import write_table

__all__ = [
    "KINDS",
    "Assessment",
    "Criteria",
    "Thresholds",
    "assess",
    "assess_folder",
    "held_out_probs",
    "write_page",
    "write_table",
]
