#!/bin/bash
# Every method of conf/loss on digits and on captioned digits, at one and at four steps, in the checkout:
# bash experiments/methods/run.sh
# `SEEDS` are 0,1,2; `MORE` holds keys for every run; `OUT`, runs/methods, gets the runs, a log and a table of each half,
# so that a try has a folder of its own: OUT=runs/try SEEDS=0 MORE="max_iterations=500" bash experiments/methods/run.sh
# Digits and captions run side by side, on a core each. What fails is named at the end of the logs; the rest goes on.
export OMP_NUM_THREADS=1
out=${OUT:-runs/methods} seeds=seed=${SEEDS:-0,1,2}
methods=no_gan,dmd2,dmd2_hinge,dmd2_relativistic,dmd2_by_level,f_distill,sid,sida,embedding,gan_only

# Equal updates of the generator for each, 400 on digits and 500 or 400 on captions, and within a number of steps of the
# critic, for all but two rows (which a try's max_iterations gives more of both).
sweep() {
  dmd2 train --multirun "$@" $seeds "paths.runs=$runs" $MORE || failed=1
}

compare() {
  dmd2 compare "runs=$runs" "out=$runs" || failed=1
  return $failed
}

on_digits() {
  runs=$out/digits failed=0
  sweep experiment=digits_dmd2 loss=$methods
  # Score identity as published: from a noise level of 2.5, and a critic that is updated as often as the generator.
  sweep experiment=digits_dmd2 loss=sid,sida sampler.times=[0.4993] critic_updates=1 max_iterations=400
  sweep experiment=digits_4step loss=$methods,segments
  sweep experiment=digits_teacher_samples,digits_dp_dmd
  # digits_teacher_samples in four steps.
  sweep experiment=digits_4step data=teacher_samples \
    pairs='{num_pairs:2000,batch_size:null,dtype:uint8,solver:{_target_:dmd2.diffusion.Heun,num_steps:18},at_once:500}'
  compare
}

on_captions() {
  runs=$out/captions failed=0
  # In one step their teacher is guided, so that guidance can be a term of its own; in four only where that term is there.
  sweep experiment=text2digits_dmd2 loss=$methods,decoupled
  sweep experiment=text2digits_dmd2_4step loss=$methods,segments
  sweep experiment=text2digits_dmd2_4step loss=decoupled teacher.guidance=1.5
  compare
}

mkdir -p "$out"
on_digits > "$out/digits.log" 2>&1 & digits=$!
on_captions > "$out/captions.log" 2>&1 & captions=$!
wait $digits; failed_digits=$?
wait $captions; failed_captions=$?
tail -n 60 "$out/digits.log" "$out/captions.log"
exit $((failed_digits || failed_captions))
