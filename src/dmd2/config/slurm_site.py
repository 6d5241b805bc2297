"""What a cluster wants of every job, in a file of its user: `conf/site.template.yaml` is one to
fill in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dmd2.config.check import config_folder


def site_settings(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The site's settings, with those that were given in their places.

    Raises FileNotFoundError where there is no file, ValueError where it is not filled in or says
    something unknown.
    """
    template = config_folder() / "site.template.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"launcher=slurm has to know this cluster, and there is no {path}; type "
            f"mkdir -p {path.parent} && cp {template} {path} and fill it in"
        )
    defaults, site = (OmegaConf.load(file) for file in (template, path))
    if unknown := sorted(set(site) - set(defaults)):
        raise ValueError(
            f"nothing reads {unknown[0]} in {path}; known here: {', '.join(sorted(defaults))}"
        )
    merged = OmegaConf.merge(
        defaults, site, {key: value for key, value in given.items() if value is not None}
    )
    if missing := sorted(OmegaConf.missing_keys(merged)):
        raise ValueError(
            f"no value for {missing[0]} in {path}; null takes what the cluster does by default"
        )
    return OmegaConf.to_container(merged)  # type: ignore[return-value]
