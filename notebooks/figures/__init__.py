"""Figures of single chapters, a module for each subject; notebooks run in the folder above.

General plots are in `genkl.plots`. Functions draw into axes that are given and return them, or
make a figure and return that.
"""
