#!/bin/bash
# Every method of conf/loss on digits, at one and at four steps, in the checkout: bash experiments/methods/run.sh
# `SEEDS` are 0,1,2; `MORE` holds keys for every run: SEEDS=0 MORE="max_iterations=500" bash ... for a try.
# The table is written into README.md.
seeds=seed=${SEEDS:-0,1,2}
methods=no_gan,dmd2,dmd2_hinge,dmd2_relativistic,dmd2_by_level,f_distill,sid,sida,embedding,gan_only

# Equal budgets: as many updates of generator and of critic for each, at one step and at four.
dmd2 train --multirun experiment=digits_dmd2 loss=$methods $seeds paths.runs=runs/methods $MORE
dmd2 train --multirun experiment=digits_teacher_samples $seeds paths.runs=runs/methods $MORE
dmd2 train --multirun experiment=digits_4step loss=$methods,segments $seeds paths.runs=runs/methods $MORE
dmd2 train --multirun experiment=digits_dp_dmd $seeds paths.runs=runs/methods $MORE

dmd2 compare runs=runs/methods out=experiments/methods
