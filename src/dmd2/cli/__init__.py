"""The command line: a module a verb of `dmd2`, and the frame that the verbs share.

Nothing is imported here: `dmd2 --help` answers before torch and Hydra are loaded, and a Slurm job
handles signals before that.
"""
