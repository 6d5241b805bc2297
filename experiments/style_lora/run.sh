#!/bin/bash -e
# The students of README.md, in the checkout: bash experiments/style_lora/run.sh
# `MORE` holds keys for every training, e.g. MORE="max_iterations=10" to try it.
teacher="teacher=text_digits_flow teacher.pretrain.max_iterations=1000"
base="experiment=text2digits_dmd2 $teacher"
lora="lora=generator lora.generator.rank=8 lora.generator.alpha=8"
# 200 updates of the generator each.
declare -A recipes=(
    [one_step]="experiment=text2digits_dmd2 sampler=one_step max_iterations=400 critic_updates=2"
    [four_step]="experiment=text2digits_dmd2_4step sampler.times=[1.0,0.75,0.5,0.25] max_iterations=1000 critic_updates=5 teacher.guidance=1.5 optimizer.generator.lr=1e-3"
)
mkdir -p runs/style

# The plain teacher, and a LoRA that tunes it to slanted digits.
dmd2 pretrain $base | tee runs/style/teacher.txt
plain="teacher.weights=$(sed -n 's/^the teacher is //p' runs/style/teacher.txt)"
python experiments/style_lora/tune.py runs/style/style.safetensors $base $plain $lora \
    data=slanted_digits teacher.pretrain.max_iterations=400
tuned="$plain +teacher.loras=[{source:runs/style/style.safetensors,scale:1.0}]"

for steps in one_step four_step; do
    distil="${recipes[$steps]} $teacher $lora metric.teacher_steps=[] $MORE"
    # The tuned teacher, from all slanted images and from few: each is scored against all of them.
    for num in null 500 50; do
        run=runs/style/${steps}_$num
        dmd2 train $distil $tuned data=slanted_digits data.num_images=$num paths.run=$run
        dmd2 evaluate run=runs/style/${steps}_null weights=$run/checkpoints/student.safetensors
        python experiments/style_lora/slant.py $run
    done
    # A turbo LoRA of the plain teacher, on the plain digits, then on the tuned teacher.
    dmd2 train $distil $plain paths.run=runs/style/turbo_$steps
    for name in plain tuned; do
        run=runs/style/turbo_${steps}_on_$name
        mkdir -p $run
        dmd2 train --cfg job --resolve $distil ${!name} data=slanted_digits > $run/config.yaml
        turbo=runs/style/turbo_$steps/checkpoints/student.safetensors
        dmd2 evaluate run=$run weights=$turbo
        python experiments/style_lora/slant.py $run $turbo
    done
done
