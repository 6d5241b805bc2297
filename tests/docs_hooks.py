"""The modules of docs/hooks/, which generate pages of the site, for tests to import."""

import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "docs" / "hooks"))
website = importlib.import_module("website")
conf_pages = importlib.import_module("conf_pages")
source_pages = importlib.import_module("source_pages")
