"""A device's share of the global batch."""

from typing import Any


def share_batch(config: dict[str, Any]) -> None:
    """Fill in `data.batch_size`, a device's share of `global_batch`, and `pairs.batch_size` with the same where null.

    Raises ValueError where devices and accumulation do not divide it, or a batch size is given that is another.
    """
    total, devices, given = config.get("global_batch"), config["trainer"]["devices"], config["data"]["batch_size"]
    if total is not None:
        if not isinstance(devices, int) or devices < 1:
            raise ValueError(f"global_batch needs a number of devices, got {devices}; e.g. trainer.devices=8")
        num_devices = devices * config["trainer"].get("num_nodes", 1)
        num_shares = num_devices * config["accumulate"]
        if total < 1 or total % num_shares:
            nearest = max(round(total / num_shares), 1) * num_shares
            raise ValueError(
                f"global_batch={total} does not divide by {num_devices} devices x accumulate={config['accumulate']}; "
                f"type global_batch={nearest}, or another number of devices"
            )
        share = total // num_devices
        if given not in (None, share):
            raise ValueError(
                f"global_batch={total} is {share} on each of {num_devices} devices, but data.batch_size={given}; "
                "type data.batch_size=null, or global_batch=null"
            )
        config["data"]["batch_size"] = share
    elif given is None:
        raise ValueError("there is no batch size; type global_batch=N, of all devices, or data.batch_size=N, of one")
    if config["pairs"] and config["pairs"].get("batch_size", 0) is None:
        config["pairs"]["batch_size"] = config["data"]["batch_size"]
