"""The book: its pages, Sphinx extensions (`_ext`), and the machine that makes it."""
