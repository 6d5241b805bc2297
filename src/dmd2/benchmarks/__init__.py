"""Benchmarks: each is a function of a source and of options, and returns the lines of a table.

`conf/part/*.yaml` names one each, for `dmd2 benchmark part=NAME`. The source is a folder or a run's
directory; with None random data are made. The functions have the names of their modules, so they
are not exported here: `dmd2.benchmarks.loader` would be one or the other.
"""
