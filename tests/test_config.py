"""The check of a config: what a global batch comes to on each device, and what the published
recipes hold.
"""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dmd2.config.batch_size import share_batch
from dmd2.config.check import Config, config_folder, resolved


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


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl", "pipeline"])
def test_a_text_teacher_can_be_told_to_compute_activations_again(name: str) -> None:
    chosen = [f"teacher={name}", "teacher.source=x", "data=prompts", "data.captions.source=x"]
    for said in ("false", "true"):
        asked = [f"teacher.denoiser.gradient_checkpointing={said}"] if said == "true" else []
        node = composed(*chosen, *asked)["teacher"]["denoiser"]
        assert node["gradient_checkpointing"] is (said == "true")


@pytest.mark.parametrize(("network", "other"), [("generator", "critic"), ("critic", "generator")])
def test_either_player_s_lora_has_its_own_rank_and_alpha_and_both_the_same_targets(
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
