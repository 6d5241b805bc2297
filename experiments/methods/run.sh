#!/bin/bash
# Every method of conf/loss on digits and on captioned digits, at one and at four steps, in the checkout:
# bash experiments/methods/run.sh
# `SEEDS` are 0,1,2; `MORE` holds keys for every run: SEEDS=0 MORE="max_iterations=500" bash ... for a try.
# The tables are written into README.md and captions/README.md. All is done on one core.
export OMP_NUM_THREADS=1
seeds=seed=${SEEDS:-0,1,2}
methods=no_gan,dmd2,dmd2_hinge,dmd2_relativistic,dmd2_by_level,f_distill,sid,sida,embedding,gan_only
digits=runs/methods/digits captions=runs/methods/captions

# Equal budgets: as many updates of generator and of critic for each, at one step and at four.
dmd2 train --multirun experiment=digits_dmd2 loss=$methods $seeds paths.runs=$digits $MORE
dmd2 train --multirun experiment=digits_4step loss=$methods,segments $seeds paths.runs=$digits $MORE
dmd2 train --multirun experiment=digits_teacher_samples,digits_dp_dmd $seeds paths.runs=$digits $MORE
dmd2 compare runs=$digits out=experiments/methods

# In one step their teacher is guided, so that guidance can be a term of its own.
dmd2 train --multirun experiment=text2digits_dmd2 loss=$methods,decoupled $seeds paths.runs=$captions $MORE
dmd2 train --multirun experiment=text2digits_dmd2_4step loss=$methods,segments $seeds paths.runs=$captions $MORE
dmd2 compare runs=$captions out=experiments/methods/captions
