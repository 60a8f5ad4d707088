"""Configuration of the documentation: Markdown, API reference from docstrings, doctests."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tiny.py, which the pages use

project = "Brambling"
author = "The Brambling authors"
copyright = author
html_title = project
html_theme = "furo"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_mock_imports = [] if find_spec("torch") else ["torch"]  # An extra, for training only.
napoleon_google_docstring = False
napoleon_attr_annotations = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Members", "params_style")]
