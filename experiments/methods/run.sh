#!/bin/bash
# Methods of conf/loss at one and at four steps, on digits and on captioned digits, each for the same time on one core:
# bash experiments/methods/run.sh [KEY=VALUE ...]     in the checkout's environment; keys of `dmd2 train` for all runs
#
# The first 200 iterations of each row are timed, one row a core and nothing beside them; its runs then have as many as
# take RUN_SECONDS (240), the same on every seed of SEEDS ("0 1 2"). JOBS (2) runs go side by side.
# HALVES ("digits captions") says which of both. OUT (runs/methods) gets digits/ROW/SEED and captions/ROW/SEED, a table of
# each half, and pace/, which is what was timed.
# What is completed there is not run again, so that the script goes on where it was stopped; it exits with 1 if a run
# failed. A try has a folder and a time of its own:
# OUT=runs/try SEEDS=0 RUN_SECONDS=20 bash experiments/methods/run.sh
export OMP_NUM_THREADS=1 OUT=${OUT:-runs/methods} RUN_SECONDS=${RUN_SECONDS:-240} KEYS
KEYS=$([ $# -eq 0 ] || printf '%q ' "$@")
methods="no_gan dmd2 dmd2_hinge dmd2_relativistic dmd2_by_level f_distill sid sida embedding gan_only"

# 2,000 samples of the teacher, by a solver of digits or of captions, and 2,000 targets of a student's first step (FirstJump).
samples=num_pairs:2000,batch_size:null,dtype:uint8,at_once:500
jumps=num_pairs:2000,batch_size:null,dtype:float16,at_once:500
heun=solver:{_target_:dmd2.diffusion.Heun,num_steps:18}
ddim=solver:{_target_:dmd2.diffusion.DDIM,num_steps:50}
jump=solver:{_target_:dmd2.diffusion.FirstJump,num_steps:6,times:[0.4,0.3,0.2,0.1]}

rows() {
  for loss in $methods; do
    echo "digits/1step_$loss experiment=digits_dmd2 loss=$loss"
    echo "digits/4step_$loss experiment=digits_4step loss=$loss"
  done
  echo "digits/1step_dmd experiment=digits_dmd"
  # Score identity as published, from a noise level of 2.5 and with a critic that is updated as often as the generator. That
  # must learn slower then: at the critic's rate it collapses.
  published="sampler.times=[0.4993] critic_updates=1 optimizer.generator.lr=1e-4"
  echo "digits/1step_sid_published experiment=digits_dmd2 loss=sid $published"
  echo "digits/1step_sida_published experiment=digits_dmd2 loss=sida $published"
  echo "digits/4step_segments experiment=digits_4step loss=segments"
  echo "digits/4step_dp_dmd experiment=digits_dp_dmd"
  echo "digits/1step_teacher_samples experiment=digits_teacher_samples"
  echo "digits/4step_teacher_samples experiment=digits_4step data=teacher_samples pairs={$samples,$heun}"
  # text2digits_dmd2's teacher is guided, text2digits_dmd2_4step's is not: decoupled, which needs guidance, sets it there.
  for loss in $methods; do
    echo "captions/1step_$loss experiment=text2digits_dmd2 loss=$loss"
    echo "captions/4step_$loss experiment=text2digits_dmd2_4step loss=$loss"
  done
  echo "captions/1step_decoupled experiment=text2digits_dmd2 loss=decoupled"
  echo "captions/4step_decoupled experiment=text2digits_dmd2_4step loss=decoupled teacher.guidance=1.5"
  echo "captions/4step_segments experiment=text2digits_dmd2_4step loss=segments"
  echo "captions/4step_dp_dmd experiment=text2digits_dmd2_4step loss=dp_dmd sampler=four_step_ode pairs={$jumps,$jump}"
  echo "captions/1step_teacher_samples experiment=text2digits_dmd2 +data.reals=pairs pairs={$samples,$ddim}"
  echo "captions/4step_teacher_samples experiment=text2digits_dmd2_4step +data.reals=pairs pairs={$samples,$ddim}"
}

# Trains into a folder of OUT unless that has a completed run: FOLDER KEY=VALUE ...
train() {
  local run=$OUT/$1 keys; shift
  grep -qs '"status": "completed"' "$run/summary.json" && return
  mkdir -p "$(dirname "$run")"
  eval "keys=($KEYS)"
  dmd2 train "$@" "${keys[@]}" "paths.run=$run" resume=auto >> "$run.log" 2>&1 ||
    { echo "not completed: $run.log: $(tail -n 1 "$run.log")"; return 1; }
}

pace() {
  train "pace/$1" "${@:2}" max_iterations=200 metric=none
}

# The run of a row and a seed: SEED ROW KEY=VALUE ...
row() {
  local timed=$OUT/pace/$2/summary.json iterations
  iterations=$(python -c 'import json, sys
seconds = json.load(open(sys.argv[1]))["training_seconds"]
print(100 * max(1, round(2 * float(sys.argv[2]) / seconds)))' "$timed" "$RUN_SECONDS") || return 1
  train "$2/$1" "${@:3}" "seed=$1" "max_iterations=$iterations" callbacks.evaluation.every=1000
}

export -f train pace row
read -ra halves <<< "${HALVES:-digits captions}"
chosen() { for half in "${halves[@]}"; do rows | grep "^$half/"; done; }
side_by_side() { xargs -r -P "${JOBS:-2}" -L 1 bash -c "$1 \"\$@\"" "$1"; }
chosen | side_by_side pace || exit 1
failed=0
for seed in ${SEEDS:-0 1 2}; do chosen | sed "s/^/$seed /" | side_by_side row || failed=1; done
for half in "${halves[@]}"; do dmd2 compare "runs=$OUT/$half" "out=$OUT/$half" || failed=1; done
exit $failed
