"""Processes: the process group, launching ranks, gradients over ranks, FSDP2, Slurm.

Nothing is imported here: a Slurm job has to handle signals (`slurm`) before torch is loaded.
"""
