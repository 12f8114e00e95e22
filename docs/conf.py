"""How the site is built: `python -m sphinx -W --keep-going -b html docs OUT`. Nothing is fetched, then or by a page."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "Warpwright"
author = "The Warpwright developers"
version = release = installed("warpwright")

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings", "sphinx.ext.napoleon", "mathml", "outside"]
exclude_patterns = ["extensions"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

# pages of the site whose text is a file elsewhere in the repository
outside_pages = {
    "contributing": "CONTRIBUTING.md",
    "results/benchmarks": "benchmarks/RESULTS.md",
    "results/recipes": "recipes/RESULTS.md",
    "results/adacs": "recipes/adacs/RESULTS.md",
    "results/dio": "recipes/dio/RESULTS.md",
    "results/gradicon": "recipes/gradicon/RESULTS.md",
    "results/metareg": "recipes/metareg/RESULTS.md",
    "results/smoothproper": "recipes/smoothproper/RESULTS.md",
}

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
maximum_signature_line_length = 90
napoleon_use_ivar = True

html_theme = "furo"
html_title = "Warpwright"
html_copy_source = False
html_show_copyright = False
html_css_files = ["site.css"]
html_static_path = ["extensions/static"]
