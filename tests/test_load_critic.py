"""From a config to objects: what a critic starts from."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.io.hashed_tensors import save_hashed
from dmd2.io.tensors import save_tensors
from dmd2.nets.critic import Critic, step_embedding_on
from dmd2.nets.discriminator import discriminator_on
from dmd2.runs.build import build
from dmd2.runs.weights import load_critic, load_denoiser


@pytest.fixture
def critic(monkeypatch: pytest.MonkeyPatch) -> Critic:
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        section = resolved(compose("train"))["teacher"]
    torch.manual_seed(0)
    denoiser, cond = (
        build(section["denoiser"]),
        build(section["conditioner"])(torch.zeros(1, dtype=torch.long)),
    )
    head = discriminator_on(denoiser, build(section["head"]), (1, 8, 8), cond)
    return Critic(
        denoiser, head, step_embedding=step_embedding_on(denoiser, "map_layer0", 4, (1, 8, 8), cond)
    )


@pytest.mark.parametrize(
    "kept", [["discriminator", "step_embedding"], ["discriminator"], ["step_embedding"], []]
)
def test_a_critic_starts_from_a_file_and_with_fresh_parts_where_it_has_none(
    critic: Critic, kept: list[str], tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in critic.state_dict().items()}
    head, step_embedding = (
        getattr(critic, part) if part in kept else None
        for part in ("discriminator", "step_embedding")
    )
    written = Critic(critic.denoiser, head, step_embedding=step_embedding)
    save_tensors(written.state_dict(), tmp_path / "critic.safetensors")
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(1)
    load_critic(critic, tmp_path / "critic.safetensors")
    for name, tensor in critic.state_dict().items():
        is_fresh = name.partition(".")[0] not in ("denoiser", *kept)
        assert torch.equal(tensor, before[name] + is_fresh), name


@pytest.mark.parametrize("load", [load_critic, lambda critic, path: load_denoiser(critic, path)])
def test_a_file_of_ours_with_a_flipped_bit_is_refused(load, critic: Critic, tmp_path: Path) -> None:
    """A teacher that was trained here, a run's critic; the others' files have no hash."""
    path = tmp_path / "kept.safetensors"
    save_hashed(critic.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        load(critic, path)
