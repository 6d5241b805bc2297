"""A device's share of the global batch."""

from typing import Any


def share_batch(config: dict[str, Any]) -> None:
    """Fill in a device's share of `global_batch`, `data.batch_size`, and likewise of pairs,
    `pairs.batch_size`.

    Pairs are as many as samples where nothing is said of them. Raises ValueError where devices and
    accumulation do
    not divide a batch, or a batch size is given that is another.
    """
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
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(f"{name} needs a number of devices, got {devices}; e.g. trainer.devices=8")
    num_devices = devices * config["trainer"].get("num_nodes", 1)
    num_shares = num_devices * config["accumulate"]
    if total < 1 or total % num_shares:
        nearest = max(round(total / num_shares), 1) * num_shares
        raise ValueError(
            f"{name}={total} does not divide by {num_devices} devices x "
            f"accumulate={config['accumulate']}; "
            f"type {name}={nearest}, or another number of devices"
        )
    share = total // num_devices
    if given not in (None, share):
        raise ValueError(
            f"{name}={total} is {share} on each of {num_devices} devices, but {own}={given}; "
            f"type {own}=null, or {name}=null"
        )
    return share
