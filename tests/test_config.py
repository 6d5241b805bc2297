"""The check of a config: batch sizes a device, renamed keys, and what published recipes hold."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dmd2.cli.main import main
from dmd2.config.batch_size import share_batch
from dmd2.config.check import Config, resolved, unknown_override
from dmd2.config.folder import config_folder
from dmd2.config.keys import RENAMED, SECTIONS, check_renamed, new_name, unknown_key
from dmd2.diffusion.schedules import Flow
from dmd2.losses import functional as F, weighting


@pytest.fixture(autouse=True)
def name_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMD2_RUN_ID", "now")


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return resolved(compose("train", overrides=list(overrides)))


@pytest.mark.parametrize(
    ("devices", "nodes", "accumulate", "share"), [(1, 1, 1, 280), (8, 1, 5, 35), (4, 2, 7, 35)]
)
def test_devices_and_nodes_share_a_global_batch(
    devices: int, nodes: int, accumulate: int, share: int
) -> None:
    sizes = [
        f"trainer.devices={devices}",
        f"+trainer.num_nodes={nodes}",
        f"accumulate={accumulate}",
    ]
    assert composed("experiment=imagenet64_dmd2", *sizes)["data"]["batch_size"] == share


def test_as_many_pairs_as_samples_where_none_are_said() -> None:
    assert composed("experiment=imagenet64_dmd", "trainer.devices=8")["pairs"]["batch_size"] == 42
    assert composed("experiment=imagenet64_dmd", "pairs.batch_size=8")["pairs"]["batch_size"] == 8


def test_devices_share_a_global_batch_of_pairs() -> None:
    pairs = composed("experiment=sd15_dmd", "trainer.devices=72")["pairs"]
    assert pairs["batch_size"] == 16
    with pytest.raises(
        ValueError, match=r"pairs\.global_batch=1152 does not divide by 256 devices"
    ):
        composed("experiment=sd15_dmd", "trainer.devices=256")


def test_a_call_may_be_what_another_key_says() -> None:
    words = ["experiment=toy2d_dmd2", "optimizer.critic=${optimizer.generator}"]
    optimizer = composed(*words)["optimizer"]
    assert optimizer["critic"] == optimizer["generator"]


@pytest.mark.parametrize("experiment", ["imagenet64_dmd", "sd15_dmd"])
def test_sharing_a_shared_batch_changes_nothing(experiment: str) -> None:
    config = composed(f"experiment={experiment}", "trainer.devices=4")
    before = str(config)
    share_batch(config)
    assert str(config) == before


@pytest.mark.parametrize("devices", ["auto", "-1"])
def test_a_global_batch_wants_to_know_how_many_devices(devices: str) -> None:
    with pytest.raises(ValueError, match=rf"got {devices}; e\.g\. trainer\.devices=8"):
        composed("experiment=imagenet64_dmd2", f"trainer.devices={devices}")


@pytest.mark.parametrize("name", ["sd15_dmd", "sd15_dmd2", "sd15_dmd2_gan", "sdxl_ode_warmstart"])
def test_activations_are_computed_again_where_the_authors_do_so(name: str) -> None:
    assert composed(f"experiment={name}")["teacher"]["denoiser"]["gradient_checkpointing"] is True


TEXT_TEACHERS = ["sd15", "sd21", "sdxl", "pipeline", "sd3", "flux", "pixart_alpha", "zimage"]


@pytest.mark.parametrize("name", TEXT_TEACHERS)
def test_a_text_teacher_can_be_told_to_compute_activations_again(name: str) -> None:
    chosen = [f"teacher={name}", "teacher.source=x", "data=prompts", "data.captions.source=x"]
    for value in ("false", "true"):
        asked = [f"teacher.denoiser.gradient_checkpointing={value}"] if value == "true" else []
        node = composed(*chosen, *asked)["teacher"]["denoiser"]
        assert node["gradient_checkpointing"] is (value == "true")


@pytest.mark.parametrize("name", ["sdxl_dmd2_4step", "sd15_dmd2", "distil"])
def test_one_word_chooses_what_is_kept_on_the_gpu(name: str) -> None:
    chosen = [f"experiment={name}", "data.captions.source=x", "teacher.source=x", "trainer=cpu"]
    for word, kept in {
        "fast": (False, None, 4),
        "balanced": (True, None, 4),
        "low": (True, "cache/prompts", 1),
    }.items():
        teacher = composed(*chosen, f"memory={word}")["teacher"]
        assert kept == (
            teacher["denoiser"]["gradient_checkpointing"],
            teacher["conditioner"]["cache"],
            teacher["autoencoder"]["at_once"],
        )
    assert composed(*chosen, "memory.decoded_tile=512")["teacher"]["autoencoder"]["tile"] == 512


def test_a_critic_s_times_in_segments_end_where_a_flow_s_loss_is_finite() -> None:
    lowest = composed("experiment=digits_4step", "loss=segments")["loss"]["views"]["critic"]["low"]
    x0 = torch.zeros(1, 2)
    weight = weighting.flow(*Flow().alpha_sigma(torch.tensor([lowest])))
    assert F.denoising(x0, x0, weight) == 0


@pytest.mark.parametrize(("network", "other"), [("generator", "critic"), ("critic", "generator")])
def test_either_network_s_lora_has_its_own_rank_and_alpha_and_both_the_same_targets(
    network: str, other: str
) -> None:
    asked = [f"lora.{network}.rank=8", f"lora.{network}.alpha=4", "lora.generator.targets=[to_q]"]
    found = composed("lora=both", *asked)["lora"]
    assert {found[name]["rank"]: found[name]["alpha"] for name in (network, other)} == {8: 4, 64: 8}
    assert found["generator"]["targets"] == found["critic"]["targets"] == ["to_q"]


def times(loss: str) -> dict[str, Any]:
    """The distribution of times of every term of a loss file."""
    node = composed(f"loss={loss}")["loss"]
    terms = {
        **node["generator"],
        **{f"critic {name}": term for name, term in node["critic"].items()},
    }
    return {name: node["views"][term["view"]] for name, term in terms.items()}


def test_the_paper_s_terms_have_the_times_that_the_authors_draw_for_each() -> None:
    assert times("dmd2_paper") == times("dmd2_independent")


def test_fastgen_s_averages_move_at_each_of_five_iterations() -> None:
    experiment = OmegaConf.load(Path(config_folder()) / "experiment" / "imagenet64_fastgen.yaml")
    assert list(experiment.ema) == pytest.approx(
        [decay**5 for decay in (0.9999, 0.99995, 0.9996)], abs=3e-6
    )


@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize(
    ("old", "answer"),
    [
        ("rung_layer", "rung_layer is now critic_step_layer; type critic_step_layer=VALUE"),
        (
            "head_reads",
            "head_reads is now discriminator_features; type discriminator_features=VALUE",
        ),
        ("max_faults", "max_faults is now max_skipped_updates; type max_skipped_updates=VALUE"),
        (
            "teacher.pretrain.module.max_faults",
            "teacher.pretrain.module.max_faults is now "
            "teacher.pretrain.module.max_skipped_updates; "
            "type +teacher.pretrain.module.max_skipped_updates=VALUE",
        ),
    ],
)
def test_a_key_of_an_older_version_is_answered_with_its_new_name(
    old: str,
    answer: str,
    plus: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dmd2", "train", f"{plus}{old}=1"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"dmd2: {answer}"


def test_what_the_answer_says_to_type_is_taken() -> None:
    taken = composed(
        "critic_step_layer=x",
        "discriminator_features=teacher",
        "max_skipped_updates=1",
        "+teacher.pretrain.module.max_skipped_updates=2",
    )
    assert taken["max_skipped_updates"] == 1
    assert taken["teacher"]["pretrain"]["module"]["max_skipped_updates"] == 2


def test_a_verb_that_never_had_an_old_key_does_not_know_it() -> None:
    assert unknown_key("max_faults", {"num_images"}) == (
        "nothing reads the key max_faults; known here: num_images"
    )


def test_an_old_key_is_known_below_any_name_and_with_what_lies_below_it() -> None:
    found = new_name("metric.suite.detectors.clip.view.size")
    assert found == "metric.suite.detectors.clip.preprocessing.size"
    assert new_name("loss.generator.dm.view") is None and new_name("metric.suite") is None
    text = "Could not override 'metric.suite.detectors.clip.view.size'."
    assert unknown_override(text, "train") == (
        "metric.suite.detectors.clip.view.size is now "
        "metric.suite.detectors.clip.preprocessing.size; "
        "type metric.suite.detectors.clip.preprocessing.size=VALUE"
    )


def test_no_old_key_is_known() -> None:
    assert not {path.rpartition(".")[2] for path in RENAMED} & set.union(*SECTIONS.values())


def test_a_config_of_an_older_version_is_refused_with_all_new_names() -> None:
    config = composed()
    check_renamed(config, "runs/x/config.yaml")
    config |= {"rung_layer": None, "head_reads": "critic"}
    config["teacher"]["pretrain"]["module"]["max_faults"] = 0
    config["metric"]["suite"]["detectors"]["whole"] = {"view": {"size": 256}}
    with pytest.raises(ValueError, match=r"^runs/x/config\.yaml is of an older version") as caught:
        check_renamed(config, "runs/x/config.yaml")
    detectors = "metric.suite.detectors.whole"
    assert sorted(re.findall(r"(\S+) is now ([\w.]+)", str(caught.value))) == [
        ("head_reads", "discriminator_features"),
        (f"{detectors}.view", f"{detectors}.preprocessing"),
        ("rung_layer", "critic_step_layer"),
        (
            "teacher.pretrain.module.max_faults",
            "teacher.pretrain.module.max_skipped_updates",
        ),
    ]
    assert "commit is in the run's summary.json" in str(caught.value)


@pytest.mark.parametrize("teacher", [{"pretrain": None}, {"pretrain": {"module": None}}, {}])
def test_a_config_without_a_pretrained_teacher_has_no_old_key_there(
    teacher: dict[str, Any],
) -> None:
    check_renamed({"teacher": teacher}, "config.yaml")
    check_renamed({}, "config.yaml")
