"""The verbs of `dmd2`, one module each; a module's docstring is its help page."""
