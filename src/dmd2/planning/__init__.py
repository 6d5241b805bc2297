"""The plan of a run: memory, work, traffic, disk and time, from its configuration and nothing else.

The run's own training step is executed on tensors without contents, so nothing is downloaded, no
GPU is needed, and no more memory is taken than the program itself has.
"""
