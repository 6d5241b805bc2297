"""One run: from its config to its directory (`run`), and from the directory back (`load`).

Nothing is imported here: a Slurm job imports `job` to handle signals before torch is loaded.
"""
