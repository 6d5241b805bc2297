"""The composed Hydra config, before anything is built: checks, batch sizes, devices, Slurm site.

Nothing is imported here: a Slurm job has to handle signals before torch is loaded.
"""
