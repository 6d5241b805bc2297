"""A dry run: torch's operations give tensors of the right shape, dtype and layout, and no contents.

It is what `FakeTensorMode` of torch does, on plain CPU tensors. So modules can be copied deeply,
moved and cast, and meet small real tensors, as in a run; fake tensors as parameters cannot.
"""

from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from dmd2.benchmarks.meter import Meter

ON_META = {"device": "meta", "generator": None}
"""Arguments of what is made of no tensor: where it goes, and the generator, which meta has not."""
BUILDING = 2**16
"""Numbers of a table that a constructor may read: `DryRun(computed=BUILDING)`."""


class HostRead(RuntimeError):
    """The host asked for a number of a tensor that has none."""


class DryRun(Meter):
    """A block in which operations compute nothing, their results coming from torch's meta kernels.

    computed  Most numbers of a result that is computed all the same, where all arguments have
              contents: so networks can be built, whose constructors read small tables.

    Raises `HostRead` where the host reads a number that was not computed.
    """

    def __init__(self, computed: int = 0) -> None:
        super().__init__()
        self.computed = computed
        self.empty: WeakValueDictionary[int, torch.UntypedStorage] = WeakValueDictionary()
        """Storages without contents, by address."""
        self.known: dict[Any, Any] = {}
        """What meta kernels said of an operation on arguments of some shapes."""

    def results(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operation gives, in most cases without its contents."""
        if is_without_contents(func):
            return func(*args, **kwargs)
        tensors: list[Tensor] = []
        key = (func, described(args, tensors), described(tuple(kwargs.items()), tensors))
        is_computed = self.computed > 0 and not any(map(self.is_empty, tensors))
        if torch.Tag.data_dependent_output in func.tags:
            if not is_computed:
                raise HostRead(f"{func} reads a number from the device")
            return func(*args, **kwargs)
        if key not in self.known:
            self.known[key] = recipe(func, args, kwargs)
        made = self.known[key]
        # Nearly always one tensor; walking a tree takes longer than all the rest.
        found: Any = (
            made.on(tensors)
            if isinstance(made, Recipe)
            else tree_map_only(Recipe, lambda part: part.on(tensors), made)
        )
        if not self.computed:
            return found
        results = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
        if is_computed and sum(x.numel() for x in results) <= self.computed:
            return func(*args, **kwargs)
        for x in results:
            self.empty[x.untyped_storage()._cdata] = x.untyped_storage()
        return found

    def is_empty(self, x: Tensor) -> bool:
        """Whether a tensor has no contents."""
        return x.untyped_storage()._cdata in self.empty


class Recipe:
    """How a result is made of an operation's tensors: it is one, a view of one, or a new one.

    base  Number of the tensor that it shares memory with, or None.
    """

    def __init__(self, meta: Tensor, twins: list[Tensor]) -> None:
        self.shape, self.stride, self.dtype = meta.shape, meta.stride(), meta.dtype
        self.offset = meta.storage_offset()
        # In-place operations give back what they were given, and some results are views.
        storage = meta.untyped_storage()._cdata
        shared = [i for i, x in enumerate(twins) if x.untyped_storage()._cdata == storage]
        self.base = shared[0] if shared else None
        self.is_base = any(x is meta for x in twins)

    def on(self, tensors: list[Tensor]) -> Tensor:
        """The result on these tensors."""
        if self.base is None:
            return untouched(self.shape, self.stride, self.dtype)
        base = tensors[self.base]
        if self.is_base:
            return base
        return base.as_strided(self.shape, self.stride, base.storage_offset() + self.offset)


def untouched(shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor that takes no memory: a page comes at its first access.

    Raises ValueError where the host does not promise so much: for one larger than its memory.
    """
    try:
        return torch.empty_strided(shape, stride, dtype=dtype)
    except RuntimeError as error:
        size = shape.numel() * dtype.itemsize / 2**30
        raise ValueError(
            f"a tensor of {size:,.0f} GiB has no plan on this host; type accumulate=N, of a score "
            "metric.batch_size=N, or gpus=N of dmd2 plan, which shares the batch"
        ) from error


def recipe(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation's results with a `Recipe` in the place of each tensor."""
    twins: list[Tensor] = []

    def twin(x: Tensor) -> Tensor:
        twins.append(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta"))
        return twins[-1]

    args, kwargs = tree_map_only(Tensor, twin, (args, kwargs))
    kwargs = kwargs | {name: to for name, to in ON_META.items() if name in kwargs}
    # Where a shape depends on contents, e.g. of a masked index, the meta kernel refuses.
    return tree_map_only(Tensor, lambda x: Recipe(x, twins), func(*args, **kwargs))


def described(x: Any, tensors: list[Tensor]) -> Any:
    """A key of all that a meta kernel reads of an argument; its tensors are added to `tensors`."""
    if isinstance(x, Tensor):
        tensors.append(x)
        return x.shape, x.stride(), x.dtype
    if isinstance(x, list | tuple):
        return tuple([described(part, tensors) for part in x])
    # A number's type decides the result's dtype, and 1 == 1.0 == True.
    return (type(x), x) if isinstance(x, bool | int | float) else str(x)


@cache
def is_without_contents(func: Any) -> bool:
    """Whether an operation reads and writes no contents: views, and questions about a shape."""
    if func.is_view or torch.Tag.inplace_view in func.tags:
        return True
    schema = func._schema
    gives_tensors = any("Tensor" in str(result.type) for result in schema.returns)
    is_read = torch.Tag.data_dependent_output in func.tags
    return not (gives_tensors or schema.is_mutable or is_read)
