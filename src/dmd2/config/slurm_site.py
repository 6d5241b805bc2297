"""Slurm settings of a cluster (partition, account, ...), in a YAML file of the user's.

`conf/site.template.yaml` is a template to fill in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dmd2.config.folder import config_folder


def site_settings(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a site's file; those of `given` that are not None come first.

    Raises FileNotFoundError where there is no file, and ValueError where a key is unknown or has
    no value yet.
    """
    template = config_folder() / "site.template.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"launcher=slurm has to know this cluster, and there is no {path}; type "
            f"mkdir -p {path.parent} && cp {template} {path} and fill it in"
        )
    # The template is the list of known keys, and has "???" where the user must decide.
    defaults, site = (OmegaConf.load(file) for file in (template, path))
    if unknown := sorted(set(site) - set(defaults)):
        raise ValueError(
            f"nothing reads {unknown[0]} in {path}; known here: {', '.join(sorted(defaults))}"
        )
    # None says nothing, and leaves the site's value; null in the site's file is a value itself.
    merged = OmegaConf.merge(
        defaults, site, {key: value for key, value in given.items() if value is not None}
    )
    if missing := sorted(OmegaConf.missing_keys(merged)):
        raise ValueError(
            f"no value for {missing[0]} in {path}; null takes what the cluster does by default"
        )
    return OmegaConf.to_container(merged)  # type: ignore[return-value]
