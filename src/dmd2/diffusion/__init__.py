"""The mathematics: noise schedules, conditions, denoisers, samplers and solvers."""
