"""Wrong types, misspelt paths and words of other programs: each answer says what to type."""

import re

import pytest

from answers import answer, inside  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("inside")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("seed=abc", ["seed must be a whole number", "got 'abc'", "type seed=0"]),
        ("seed=1.5", ["seed", "1.5"]),
        ("seed=-1", ["seed", "at least 0", "-1"]),
        ("seed=null", ["seed", "null"]),
        ("seed=true", ["seed", "true"]),
        ("seed=[0]", ["seed", "[0]"]),
        ("max_iterations=1e3", ["max_iterations", "type max_iterations=1000"]),
        ("max_iterations=fast", ["max_iterations", "'fast'"]),
        ("log_every=2.0", ["type log_every=2"]),
        ("critic_updates=none", ["critic_updates", "'none'"]),
        ("accumulate=null", ["accumulate", "null"]),
        ("global_batch=big", ["global_batch", "'big'"]),
        ("max_grad_norm=-1", ["max_grad_norm", "above 0"]),
        ("max_grad_norm=nan", ["max_grad_norm", "nan"]),
        ("max_skipped_updates=-1", ["max_skipped_updates", "-1"]),
        ("ema=[fast]", ["ema=[0.999]"]),
        ("ema=null", ["ema=[0.999]"]),
        ("resume=3", ["resume", "got 3"]),
        ("resume_allow=seed", ["resume_allow=[seed]"]),
        ("name=7", ["name must be text", "got 7"]),
        ("weights=1", ["weights", "got 1"]),
        ("discriminator_features=teache", ["did you mean discriminator_features=teacher?"]),
        ("checkpoint.every=1e2", ["type checkpoint.every=100"]),
        ("checkpoint.keep=all", ["checkpoint.keep", "'all'"]),
        ("checkpoint=5", ["checkpoint"]),
        ("paths.cache=null", ["paths.cache", "null"]),
        ("teacher.guidance=strong", ["teacher.guidance", "'strong'"]),
        ("teacher.pretrain.max_iterations=1.5", ["teacher.pretrain.max_iterations", "1.5"]),
        ("optimizer.generator.lr=fast", ["optimizer.generator.lr", "'fast'"]),
        ("optimizer.critic.lr=-1", ["optimizer.critic.lr", "at least 0"]),
        ("optimizer.critic.lr=null", ["optimizer.critic.lr", "null"]),
        (
            "+optimizer.critic.betas=0.9",
            ["optimizer.critic.betas", "type optimizer.critic.betas=["],
        ),
        ("+optimizer.critic.betas=[0,1.5]", ["optimizer.critic.betas", "below 1"]),
        ("optimizer.generator.weight_decay=x", ["optimizer.generator.weight_decay", "'x'"]),
        ("optimizer.generator.fused=5", ["optimizer.generator.fused", "true or false"]),
        ("optimizer.lr_factor.decay_from=2", ["optimizer.lr_factor.decay_from", "between 0 and 1"]),
        ("teacher.pretrain.module.optimizer.lr=x", ["teacher.pretrain.module.optimizer.lr", "'x'"]),
        ("teacher.denoiser.model.dropout=lots", ["teacher.denoiser.model.dropout", "'lots'"]),
        ("loss.generator.gan.weight=-0.1", ["loss.generator.gan.weight", "at least 0"]),
        ("callbacks.samples.every=1e2", ["callbacks.samples.every"]),
        ("metric.num_samples=many", ["metric.num_samples", "'many'"]),
        ("metric.primary=3", ["metric.primary", "text"]),
        ("sampler.times=1", ["sampler.times", "a list"]),
        ("optimizer.generator.lr=inf", ["optimizer.generator.lr", "inf"]),
        ("tf32=2", ["tf32", "true or false", "got 2"]),
        ("data.seed=-5", ["data.seed", "at least 0", "-5"]),
        ("checkpoint=null", ["checkpoint must be a section", "null"]),
        ("loss.critic=null", ["loss.critic must be a section", "null"]),
        ("teacher.denoiser=null", ["teacher.denoiser must be a call"]),
        ("~optimizer.critic", ["there is no optimizer.critic, and it is needed"]),
        ("data=null", ["data=null names no choice", "type data=NAME"]),
        ("~seed", ["there is no seed", "leave ~seed out"]),
        ("~max_grad_norm", ["there is no max_grad_norm"]),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_its_key(
    typed: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = answer(capsys, "train", typed)
    assert all(word in line for word in words), line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "run=x", "num_images=few"], ["num_images", "'few'"]),
        (["sample", "run=x", "num_images=1e2"], ["type num_images=100"]),
        (["sample", "run=x", "seed=-3"], ["seed", "-3"]),
        (["sample", "run=x", "prompt=[]"], ["prompt must be a text, a list", "got []"]),
        (["sample", "run=x", "batch_size=0"], ["batch_size", "at least 1"]),
        (["evaluate", "run=x", "num_samples=[1,x]"], ["num_samples", "x"]),
        (["evaluate", "run=[a]"], ["run must be text"]),
        (["benchmark", "part.num_batches=x"], ["part.num_batches", "'x'"]),
    ],
    ids=" ".join,
)
def test_an_option_of_a_wrong_type_is_named(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = answer(capsys, *arguments)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "optimizer.generator.learning_rate=1"], ["mean optimizer.generator.lr?"]),
        (["train", "optimizer.critic.learning_rat=1"], ["did you mean optimizer.critic.lr?"]),
        (["train", "optimizer.generatr.lr=1"], ["did you mean optimizer.generator.lr?"]),
        (["train", "optimiser.critic.lr=1"], ["did you mean optimizer.critic.lr?"]),
        (["train", "teacher.denoiser.model.drop_out=1"], ["mean teacher.denoiser.model.dropout?"]),
        (["train", "callbacks.sample.every=1"], ["did you mean callbacks.samples.every?"]),
        (["train", "metric.num_sample=5"], ["did you mean metric.num_samples?"]),
        (["train", "trainer.max_steps=10"], ["type max_iterations=10"]),
        (["train", "trainer.max_epochs=3"], ["type max_iterations=3"]),
        (["train", "trainer.accumulate_grad_batches=2"], ["type accumulate=2"]),
        (["train", "num_steps=4"], ["max_iterations=4", "sampler"]),
        (["train", "device=cuda"], ["type trainer=gpu"]),
        (["train", "device=cpu"], ["type trainer=cpu"]),
        (["train", "gpus=4"], ["type trainer=ddp trainer.devices=4"]),
        (["train", "lr=1e-4"], ["optimizer.generator.lr=1e-4", "optimizer.critic.lr=1e-4"]),
        (["train", "batch_size=16"], ["global_batch=16"]),
        (["train", "output_dir=here"], ["paths.run=here"]),
        (["train", "model_id=x/y"], ["teacher.source=x/y"]),
        (["train", "sampler.num_samples=4"], ["metric.num_samples"]),
        (["prepare", "recipe=imagenet64", "recipe.source=x", "out=y"], ["did you mean source?"]),
        (["sample", "run=x", "seeed=1"], ["did you mean seed?"]),
        (["train", "logger=tb"], ["logger=tensorboard"]),
        (["train", "trainer=cuda"], ["trainer=gpu"]),
        (["train", "experiment=toy2d_dmd2", "+data.num_workers=-1"], ["num_workers must be a"]),
        (["train", "optimizer=adam"], ["optimizer=adamw"]),
        (["train", "experiment=digits_dm2"], ["did you mean experiment=digits_dmd2", "toy2d_dmd2"]),
        (["train", "loss=dmd3"], ["did you mean loss=dmd", "no_gan"]),
        (["train", "teacher=sdx"], ["did you mean teacher=sdxl", "digits"]),
        (["benchmark", "part=loaders"], ["did you mean part=loader", "steps"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_the_nearest_key_or_choice_is_named(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = answer(capsys, *arguments)
    assert all(word in line for word in words), line
    assert "type +" not in line


@pytest.mark.parametrize(
    "given",
    [
        "optimizer.critic={lr: 1, beta: 1}",
        "teacher.denoiser.model={widh: 8}",
        "teacher.denoiser.schedule={sigma_mx: 1}",
    ],
)
def test_a_mapping_with_an_unknown_key_names_it_and_how_to_put_it_in_the_place_of_the_other(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    section = given.partition("=")[0]
    line = answer(capsys, "train", given)
    assert re.search(rf"no key {section}\.\w+", line), line
    assert f"'~{section}' '+{given}'" in line


@pytest.mark.parametrize(
    "key",
    [
        *("teacher.denoiser", "teacher.weighting", "teacher.conditioner", "optimizer.lr_factor"),
        *("lora.generator", "callbacks.samples", "teacher.denoiser.schedule", "loss.views.critic"),
    ],
)
@pytest.mark.parametrize("value", ["abc", "3"])
def test_plain_data_where_an_object_goes_is_one_line(
    key: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = answer(capsys, "train", f"{key}={value}", "max_iterations=1")
    assert key in line, line


def test_what_only_a_class_takes_is_added_with_a_plus(capsys: pytest.CaptureFixture[str]) -> None:
    line = answer(capsys, "train", "optimizer.critic.betas=[0.5,0.9]")
    assert "type +optimizer.critic.betas=[0.5,0.9]" in line
    line = answer(capsys, "train", "experiment=toy2d_dmd2", "data.num_workers=-1")
    assert "type +data.num_workers=-1" in line
    line = answer(
        capsys, "train", "experiment=text2digits_dmd2", "optimizer.critic.betas=[0.5,0.9]"
    )
    assert "type +optimizer.critic.betas=[0.5,0.9]" in line
    assert "+" not in answer(capsys, "train", "optimizer.critic.zzz=1").replace("++", "")
