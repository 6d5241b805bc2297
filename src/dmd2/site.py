"""What a cluster wants of every job, in a file of its user: `conf/site.template.yaml` is one to fill in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dmd2.config import config_folder


def filled_in(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The site's settings, with those that were given in their places.

    Raises FileNotFoundError where there is no file, ValueError where it is not filled in or says something unknown.
    """
    template = config_folder() / "site.template.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"launcher=slurm has to know this cluster, and there is no {path}; type "
            f"mkdir -p {path.parent} && cp {template} {path} and fill it in"
        )
    site, known = OmegaConf.load(path), set(OmegaConf.load(template))
    if unknown := sorted(set(map(str, site)) - known):
        raise ValueError(f"nothing reads {unknown[0]} in {path}; known here: {', '.join(sorted(map(str, known)))}")
    found = {}
    for key in known:
        if given.get(key) is not None:
            found[key] = given[key]
        elif key not in site or OmegaConf.is_missing(site, key):
            raise ValueError(f"no value for {key} in {path}; null takes what the cluster does by default")
        else:
            found[key] = site[key]
    return {str(key): OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in found.items()}
