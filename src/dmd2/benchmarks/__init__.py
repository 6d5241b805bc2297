"""Benchmarks: each part is a function of a source (None: made up) and gives the lines of a
table.
"""
