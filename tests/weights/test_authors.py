"""Checkpoints of DMD2's authors: recognised by names, loaded into our networks, or refused."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from dmd2.cli.import_weights import import_weights
from dmd2.diffusion.preconditioning import EDM
from dmd2.diffusion.schedules import Karras
from dmd2.io.tensors import load_weights
from dmd2.nets.adm import DhariwalUNet
from dmd2.nets.critic import Critic
from dmd2.nets.discriminator import ConvHead, Discriminator

State = dict[str, Tensor]


def denoiser() -> EDM:
    model = DhariwalUNet(
        8, 3, 3, label_dim=4, model_channels=32, channel_mult=[1], num_blocks=1, attn_resolutions=[]
    )
    return EDM(model, Karras())


def state(seed: int) -> State:
    """A network's tensors as the authors name them, all different."""
    torch.manual_seed(seed)
    return {name: torch.randn_like(value) for name, value in denoiser().state_dict().items()}


def head() -> Discriminator:
    torch.manual_seed(3)
    return Discriminator([ConvHead(torch.Size([1, 32, 8, 8]))])


def guidance(head_too: bool = True) -> State:
    """What pytorch_model_1.bin holds: teacher, critic, perhaps its head, the table of sigmas."""
    found = {f"real_unet.{k}": v for k, v in state(1).items()} | {
        f"fake_unet.{k}": v for k, v in state(2).items()
    }
    if head_too:
        found |= {f"cls_pred_branch.{k}": v for k, v in head().heads[0].layers.state_dict().items()}
    return found | {"karras_sigmas": torch.linspace(0, 1, 10)}


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "prefix", ["", "module.", "feedforward_model.", "module.feedforward_model."]
)
def test_a_generator_is_found_under_any_prefix(tmp_path: Path, prefix: str):
    source = saved({prefix + k: v for k, v in state(0).items()}, tmp_path / "pytorch_model.bin")
    import_weights(source, tmp_path / "g.safetensors")
    ours = denoiser()
    load_weights(ours, tmp_path / "g.safetensors")
    assert all(torch.equal(value, state(0)[name]) for name, value in ours.state_dict().items())
    with safe_open(tmp_path / "g.safetensors", "pt") as file:
        assert file.metadata().keys() == {"source", "sha256"}


@pytest.mark.parametrize("prefix", ["", "module.", "guidance_model."])
def test_a_critic_comes_with_its_head(
    tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
):
    source = saved({prefix + k: v for k, v in guidance().items()}, tmp_path / "pytorch_model_1.bin")
    import_weights(source, tmp_path / "c.safetensors")
    critic = Critic(denoiser(), head())
    torch.nn.init.zeros_(critic.discriminator.heads[0].layers[0].weight)  # type: ignore
    load_weights(critic, tmp_path / "c.safetensors")
    assert all(
        torch.equal(value, state(2)[name]) for name, value in critic.denoiser.state_dict().items()
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(critic.discriminator.parameters(), head().parameters(), strict=True)
    )
    output = capsys.readouterr().out
    assert "a critic of" in output and f"left out: {len(state(1)) + 1} tensors" in output


def test_a_critic_without_a_head_is_one(tmp_path: Path):
    import_weights(saved(guidance(head_too=False), tmp_path / "m.bin"), tmp_path / "c.safetensors")
    load_weights(Critic(denoiser(), None), tmp_path / "c.safetensors")


def test_of_both_networks_the_generator_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    both = {f"feedforward_model.{k}": v for k, v in state(0).items()}
    both |= {f"guidance_model.{k}": v for k, v in guidance().items()} | {
        "unheard_of": torch.zeros(1)
    }
    import_weights(saved(both, tmp_path / "m.bin"), tmp_path / "g.safetensors")
    assert load_file(tmp_path / "g.safetensors").keys() == denoiser().state_dict().keys()
    assert "guidance_model, unheard_of" in capsys.readouterr().out


class Calls:
    def __reduce__(self):
        return os.system, ("touch ran",)


def squeezed(path: Path) -> None:
    """An archive that would unpack to a thousand times its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))


def claims_more(path: Path) -> None:
    """A tensor that says it has a thousand times the numbers that are there."""
    torch.save({"model.map_layer0.weight": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content[:4] if "/data/" in name else content)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a call": (lambda path: torch.save({"model.map_layer0.weight": Calls()}, path), "posix.system"),
    "an archive that swells": (squeezed, "unpacks to more than it is"),
    "numbers that are not there": (claims_more, "refused"),
    "tensors that overlap": (
        lambda path: torch.save({"model.map_layer0.weight": torch.zeros(1).expand(10**9)}, path),
        "would fill more than the file",
    ),
    "a list": (lambda path: torch.save([torch.zeros(1)], path), "no state dict"),
    "a number among tensors": (lambda path: torch.save({"step": 3}, path), "no state dict"),
    "another network": (
        lambda path: torch.save({"down_blocks.0.weight": torch.zeros(1)}, path),
        "down_blocks",
    ),
    "two generators": (
        lambda path: torch.save({f"{p}.map_layer0.weight": torch.zeros(1) for p in "ab"}, path),
        "no one generator",
    ),
    "an old file": (lambda path: path.write_bytes(pickle.dumps(Calls(), 2)), "posix"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_such_checkpoint_is_refused(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    make, words = HOSTILE[case]
    make(Path("m.bin"))
    Path("good.safetensors").write_text("good")
    with pytest.raises(ValueError, match=words):
        import_weights(Path("m.bin"), Path("good.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.safetensors", "m.bin"]
    assert Path("good.safetensors").read_text() == "good"
