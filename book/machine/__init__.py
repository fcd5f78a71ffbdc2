"""The book's machine: it executes notebooks, and renders pages and slides from the copies.

Notebooks are committed without outputs. `execution` puts executed copies into
``_executed/<profile>/``, each made again only when something that it depends on has changed, and
`rendering` builds the pages from them. A profile (``notebooks/manifest.yml``) names the parameters
of every notebook. ``python -m book`` is the command line.
"""
