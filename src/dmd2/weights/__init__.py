"""Weights at the border: the files that networks are kept in, ours and others'."""
