"""Files of weights into the networks that a config describes."""

from pathlib import Path

from hydra.utils import get_object

from dmd2.config.check import Config
from dmd2.diffusion.denoiser import Denoiser
from dmd2.io.hashed_tensors import check_hash
from dmd2.io.tensors import load_weights, names_in, read_metadata, read_tensors
from dmd2.nets.critic import Critic
from dmd2.nets.lora import is_lora, load_products
from dmd2.weights.architecture import check_architecture


def load_denoiser(denoiser: Denoiser, path: Path) -> None:
    """Fill a denoiser from a file of ours, of its network alone, as diffusers writes them, or of
    the LoRA that is on it.

    Raises ValueError where a file of ours was altered.
    """
    check_hash(path)
    if is_lora(names := names_in(path)):
        load_products(denoiser.model, read_tensors(path), path)
        return
    # Files of diffusers hold the network alone, ours a Denoiser with the network as `model`.
    is_ours = any(name.startswith("model.") for name in names)
    load_weights(denoiser if is_ours else denoiser.model, path)


def load_fitting(denoiser: Denoiser, path: Path, section: Config) -> None:
    """Fill a denoiser of a teacher section from a file.

    Raises ValueError where the file says that it is of another network.
    """
    if "model" in section["denoiser"]:
        model = get_object(section["denoiser"]["model"]["_target_"])
        check_architecture(path, read_metadata(path), section, model)
    load_denoiser(denoiser, path)


def load_critic(critic: Critic, path: Path) -> None:
    """Fill a critic from a file.

    A discriminator and an embedding of steps stay fresh where the file has none. Raises ValueError
    where a file of ours was altered.
    """
    check_hash(path)
    # A file of a run without a GAN has no discriminator, of one step no embedding.
    parts = {name.partition(".")[0] for name in names_in(path)}
    discriminator, step_embedding = (
        getattr(critic, part) if part in parts else None
        for part in ("discriminator", "step_embedding")
    )
    load_weights(Critic(critic.denoiser, discriminator, step_embedding=step_embedding), path)
