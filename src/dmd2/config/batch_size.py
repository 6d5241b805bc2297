"""Batch sizes: each device's share of the global batch, with gradient accumulation."""

from typing import Any


def share_batch(config: dict[str, Any]) -> None:
    """Fill in `data.batch_size`, a device's share of `global_batch`; likewise `pairs.batch_size`.

    Changes `config`. Where neither is given, `pairs.batch_size` is `data.batch_size`. Raises
    ValueError where devices and accumulation do not divide a batch, where a given batch size is
    not the share, and where there is none.
    """
    # A section of pairs is optional; with one, a batch size of null is filled in, and a missing
    # key is left for `check` to name.
    data, pairs = config["data"], config["pairs"] or {}
    if config.get("global_batch") is not None:
        data["batch_size"] = _share(
            config, config["global_batch"], "global_batch", data["batch_size"], "data.batch_size"
        )
    elif data["batch_size"] is None:
        raise ValueError(
            "there is no batch size; type global_batch=N, of all devices, or data.batch_size=N, "
            "of one"
        )
    if pairs.get("global_batch") is not None:
        given = pairs.get("batch_size")
        pairs["batch_size"] = _share(
            config, pairs["global_batch"], "pairs.global_batch", given, "pairs.batch_size"
        )
    elif pairs.get("batch_size", 0) is None:
        pairs["batch_size"] = data["batch_size"]


def _share(config: dict[str, Any], total: int, name: str, given: int | None, own: str) -> int:
    devices = config["trainer"]["devices"]
    # "auto" and -1 are known only on the machine that trains, which may not be this one.
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(f"{name} needs a number of devices, got {devices}; e.g. trainer.devices=8")
    num_devices = devices * config["trainer"].get("num_nodes", 1)
    num_shares = num_devices * config["accumulate"]
    if total < 1 or total % num_shares:
        # Something to type: the nearest batch that divides, and at least one sample a share.
        nearest = max(round(total / num_shares), 1) * num_shares
        raise ValueError(
            f"{name}={total} does not divide by {num_devices} devices x "
            f"accumulate={config['accumulate']}; "
            f"type {name}={nearest}, or another number of devices"
        )
    share = total // num_devices
    # The same number is no contradiction: a config may come here twice.
    if given not in (None, share):
        raise ValueError(
            f"{name}={total} is {share} on each of {num_devices} devices, but {own}={given}; "
            f"type {own}=null, or {name}=null"
        )
    return share
