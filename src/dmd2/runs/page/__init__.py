"""The pages that runs leave: one self-contained HTML file of a run, or of many."""
