"""What operations cost: their number, FLOPs, and the memory of all tensors alive, by owner."""

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

BLOCK_BYTES = 512
"""What CUDA's allocator rounds every tensor up to."""
TEMPORARY = "activations and temporaries"


class Ledger:
    """Bytes of the storages that are alive, by owner, and what they were at their peak."""

    def __init__(self) -> None:
        self.alive: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._owners: dict[int, tuple[str, int]] = {}

    def own(self, tensors: Iterable[Tensor], owner: str) -> None:
        """Count storages as `owner`'s; those that have another owner already stay with it."""
        for tensor in tensors:
            self.add(tensor)
            key = tensor.untyped_storage()._cdata
            before, size = self._owners[key]
            if before == TEMPORARY:
                self._owners[key] = (owner, size)
                self.alive[before] -= size
                self.alive[owner] += size

    def own_all(self, owners: Iterable[tuple[str, Iterable[Tensor]]]) -> None:
        """`own`, of pairs of an owner and its tensors."""
        for owner, tensors in owners:
            self.own(tensors, owner)

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed, unless it is counted."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._owners:
            return
        size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        self._owners[key] = (TEMPORARY, size)
        self.alive[TEMPORARY] += size
        weakref.finalize(storage, self._freed, key).atexit = False
        if self.alive.total() > self.peak.total():
            self.peak = self.alive.copy()

    def _freed(self, key: int) -> None:
        owner, size = self._owners.pop(key)
        self.alive[owner] -= size


class Meter(TorchDispatchMode):
    """A block whose operations are counted: `num_operations`, `flops` (two a multiply-add), the
    bytes that they read and write, `num_bytes`, and the storages of their results in `ledger`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.num_operations, self.flops, self.num_bytes = Ledger(), 0, 0, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count it."""
        kwargs = dict(kwargs or {})
        results = self.results(func, args, kwargs)
        if not func.is_view:  # a view launches nothing on a GPU
            self.num_operations += 1
            if (count := flop_registry.get(func._overloadpacket)) is not None:
                self.flops += count(*args, **kwargs, out_val=results)
            self.num_bytes += nbytes((args, results))
            for x in [results] if isinstance(results, Tensor) else tree_leaves(results):
                if isinstance(x, Tensor):
                    self.ledger.add(x)
        return results

    def results(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operation gives: here by running it."""
        return func(*args, **kwargs)


def nbytes(x: Any) -> int:
    """Bytes of the tensors in nested lists and tuples."""
    if isinstance(x, Tensor):
        return x.numel() * x.itemsize
    return sum(map(nbytes, x)) if isinstance(x, list | tuple) else 0
