"""Malicious pickles: refused in one line that says why, with nothing executed or written."""

import copyreg
import io
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import Persistent, dump, persistent
from safetensors.torch import load_file

from dmd2.cli.errors import one_line
from dmd2.cli.import_weights import import_weights
from dmd2.nets.adm import DhariwalUNet
from dmd2.weights import opcodes, pickles

TRAP = "touch ran"
"""What the hostile files want: a file in the working directory."""
CONFIG = {"img_resolution": 8, "img_channels": 3, "label_dim": 0, "model_type": "SongUNet"}


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def text(value: str) -> bytes:
    """The instruction that makes a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def named(module: str, name: str) -> bytes:
    """The instructions that name something."""
    return text(module) + text(name) + b"\x93"


def program(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def stored() -> bytes:
    """A storage of four numbers as EDM's files hold it."""
    stream = io.BytesIO()
    torch.save(torch.zeros(4)._typed_storage(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def storage(inner: Any) -> bytes:
    """A pickle with this for the bytes of a storage."""
    return pickle.dumps(Calls(torch.storage._load_from_bytes, inner))


def after_the_header(tail: bytes) -> bytes:
    """A storage whose magic number, version and system are right, and then this."""
    stream = io.BytesIO(stored())
    for _ in range(3):
        list(pickletools.genops(stream))
    return stream.getvalue()[: stream.tell()] + tail


def claiming(numbers: int, times: int = 1) -> bytes:
    """A storage of four numbers that says it has more, or says so many times."""
    number = pickle.dumps(numbers, 2)[2:-1]
    identity = (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + number
        + b"NtQ"
    )
    header = b"\x80\x02" + identity * times + b"." + pickle.dumps(["0"], 2)
    return after_the_header(header + struct.pack("<q", 4) + bytes(16))


def tensor(size: tuple[Any, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A tensor on a storage of four numbers."""
    held = Calls(torch.storage._load_from_bytes, stored())
    return pickle.dumps(
        Calls(torch._utils._rebuild_tensor_v2, held, offset, size, stride, False, OrderedDict())
    )


def bomb() -> bytes:
    """An archive of zeros that unpacks to a thousand times its size."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    return stream.getvalue()


def tape() -> bytes:
    """The oldest format of torch.save."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return stream.getvalue()


SYSTEM = named("os", "system")
REBUILD = named("torch._utils", "_rebuild_parameter")
MODULE_DICT = named("torch.nn.modules.container", "ModuleDict")
OVERWRITE = b"N}" + text("__setstate__") + b"Ns\x86b"  # (None, {"__setstate__": None}), BUILD
BYTES = stored()
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "reduce": (lambda: pickle.dumps(Calls(os.system, TRAP)), "names 'posix.system"),
    "reduce in protocol 0": (lambda: pickle.dumps(Calls(os.system, TRAP), 0), "the instruction"),
    "within a dictionary": (
        lambda: pickle.dumps({"ema": {"a": [Calls(eval, TRAP)]}}),
        "names 'builtins.eval",
    ),
    "global": (lambda: b"cos\nsystem\n" + text(TRAP) + b"\x85R.", "names 'os.system"),
    "inst": (lambda: b"(S'touch ran'\nios\nsystem\n.", "the instruction STRING"),
    "inst of text": (lambda: b"(" + text(TRAP) + b"ios\nsystem\n.", "the instruction INST"),
    "obj": (lambda: b"(cos\nsystem\n" + text(TRAP) + b"o.", "the instruction OBJ"),
    "newobj": (
        lambda: program(named("subprocess", "Popen"), text(TRAP), b"\x85\x81"),
        "names 'subprocess.Popen",
    ),
    "newobj_ex": (
        lambda: program(named("subprocess", "Popen"), text(TRAP), b"\x85}\x92"),
        "NEWOBJ_EX",
    ),
    "dotted name": (
        lambda: program(named("torch._utils", "_rebuild_parameter.__globals__")),
        "_rebuild_parameter.__globals__",
    ),
    "way through a module": (
        lambda: program(named("torch.storage", "os.system")),
        "storage.os.system'",
    ),
    "half a name in the module's": (
        lambda: program(named("torch", "_utils._rebuild_parameter")),
        "names 'torch",
    ),
    "name of an allowed module": (
        lambda: program(named("collections", "namedtuple")),
        "namedtuple'",
    ),
    "numpy's own loader": (lambda: program(named("numpy", "load")), "names 'numpy.load"),
    "persistent id": (lambda: b"P1\n.", "the instruction PERSID"),
    "binary persistent id": (lambda: program(text("1"), b"Q"), "the instruction BINPERSID"),
    "extension": (lambda: program(b"\x82\xf0", text(TRAP), b"\x85R"), "the instruction EXT1"),
    "long extension": (
        lambda: program(b"\x83\xf0\x00", text(TRAP), b"\x85R"),
        "the instruction EXT2",
    ),
    "build on a function": (lambda: program(REBUILD, OVERWRITE), "sets attributes of _Call"),
    "build on a class": (lambda: program(MODULE_DICT, OVERWRITE), "__setstate__"),
    "build on a dictionary": (
        lambda: program(named("collections", "OrderedDict"), b")R", OVERWRITE),
        "of _Dict",
    ),
    "build on a storage": (
        lambda: storage(stored())[:-1] + OVERWRITE + b".",
        "sets attributes of Record",
    ),
    "dictionary of something": (
        lambda: program(named("dnnlib.util", "EasyDict"), b"]\x85R"),
        "argument",
    ),
    "object number": (
        lambda: program(named("numpy", "dtype"), text("O8"), b"\x85R"),
        "number of type 'O8'",
    ),
    "within a storage": (
        lambda: storage(pickle.dumps(Calls(os.system, TRAP), 2)),
        "names 'posix.system",
    ),
    "within a storage, later": (
        lambda: storage(after_the_header(pickle.dumps(Calls(os.system, TRAP), 2))),
        "names 'posix.system",
    ),
    "new opcodes within a storage": (
        lambda: storage(after_the_header(program(SYSTEM))),
        "instruction STACK_GLOBAL",
    ),
    "pickle within a storage": (lambda: storage(storage(stored())), "not in the form"),
    "storage that is no bytes": (lambda: storage("a"), "not bytes"),
    "storage that claims more": (
        lambda: storage(claiming(10**13)),
        "claims 10000000000000 numbers",
    ),
    "storage that claims a little more": (lambda: storage(claiming(5)), "wrong byte size"),
    "many storages in one": (lambda: storage(claiming(4, times=2)), "instruction BINPERSID"),
    "storage of many instructions": (
        lambda: storage(after_the_header(b"N" * 100)),
        "instruction NONE",
    ),
    "one storage many times": (
        lambda: pickle.dumps([Calls(torch.storage._load_from_bytes, BYTES) for _ in range(100)]),
        "the same storage again",
    ),
    "archive for a storage": (lambda: storage(bomb()), "not in the form"),
    "tape for a storage": (lambda: storage(tape()), "not in the form"),
    "tensor larger than its storage": (
        lambda: tensor((10**6, 10**6), (0, 0)),
        "larger than its storage",
    ),
    "tensor beyond its storage": (lambda: tensor((4,), (1,), 1), "out of bounds"),
    "tensor before its storage": (lambda: tensor((4,), (-1,), 3), "Negative strides"),
    "tensor of strings": (lambda: tensor(("a", 10**9), (1, 1)), "larger than its storage"),
    "bytes that are not there": (
        lambda: program(b"\x8e" + struct.pack("<Q", 2**40)),
        "expected 1099511627776 bytes",
    ),
    "frame that is not there": (
        lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
        "truncated",
    ),
    "memo of billions": (lambda: program(b"Nr\xff\xff\xff\xff"), "4294967295 memos"),
    "key too deep to hash": (lambda: program(b"})", b"\x85" * 300_000, b"Ns"), "more instructions"),
    "lists in lists": (lambda: program(b"]" * 200_000, b"a" * 199_999), "'ema' is 'NoneType'"),
    "without end": (lambda: program(b"N" * 510_000), "more instructions"),
    "empty stack": (lambda: program(b"0"), "the instruction POP"),
    "underflow": (lambda: program(b"R"), "underflow"),
    "memo never made": (lambda: program(b"h\x07"), "refused"),
    "not a pickle": (lambda: b"<!doctype html><title>404</title>", "refused"),
    "nothing": (lambda: b"", "refused"),
}


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], str]:
    """Imports bytes over a good file; gives the error's line, and checks that nothing was done."""
    monkeypatch.chdir(tmp_path)

    def refused(content: bytes) -> str:
        Path("hostile.pkl").write_bytes(content)
        Path("good.safetensors").write_text("good")
        with pytest.raises(ValueError) as caught:
            import_weights(Path("hostile.pkl"), Path("good.safetensors"))
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "good.safetensors",
            "hostile.pkl",
        ]
        assert Path("good.safetensors").read_text() == "good"
        line = one_line(caught.value)
        assert line and "\n" not in line and len(line) < 2000
        return line

    return refused


@pytest.mark.parametrize("case", HOSTILE)
def test_what_would_do_harm_is_refused_by_name(hostile: Callable[[bytes], str], case: str):
    make, words = HOSTILE[case]
    assert words in hostile(make())


def test_the_trap_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Calls(os.system, TRAP)))
    assert Path("ran").exists()


def test_an_extension_that_python_has_seen_is_refused(hostile: Callable[[bytes], str]):
    copyreg.add_extension("os", "system", 240)
    try:
        pickle.loads(program(b"\x82\xf0"))  # it is now kept where no find_class is asked
        assert "the instruction EXT1" in hostile(program(b"\x82\xf0", text(TRAP), b"\x85R"))
    finally:
        copyreg.remove_extension("os", "system", 240)
        copyreg.clear_extension_cache()


def test_a_name_stands_for_what_it_did_after_all_that(hostile: Callable[[bytes], str]):
    before = {
        key: (type(value), getattr(value, "_function", None))
        for key, value in pickles.ALLOWED.items()
    }
    for case in HOSTILE:
        if case.startswith("build"):
            hostile(HOSTILE[case][0]())
    assert before == {
        key: (type(value), getattr(value, "_function", None))
        for key, value in pickles.ALLOWED.items()
    }


def small(path: Path) -> Path:
    """A good file of one convolution."""
    return dump({"ema": persistent({"model.enc.conv.weight": torch.ones(4, 3)}, CONFIG)}, path)


def test_a_good_file_that_is_cut_anywhere_is_refused(
    hostile: Callable[[bytes], str], tmp_path: Path
):
    whole = small(tmp_path / "hostile.pkl").read_bytes()
    for length in range(0, len(whole), 97):
        assert "refused" in hostile(whole[:length])


def test_tensors_that_would_outgrow_the_file_are_refused(
    hostile: Callable[[bytes], str], tmp_path: Path
):
    network = persistent({"model.enc.conv.weight": torch.ones(2000)}, CONFIG)
    shared = network.model.enc.conv.weight
    for i in range(100):
        network.model.enc[f"conv{i}"] = Persistent("Conv2d")
        network.model.enc[f"conv{i}"].weight = shared
    assert "would fill more than the file" in hostile(
        dump({"ema": network}, tmp_path / "hostile.pkl").read_bytes()
    )


def test_two_names_of_one_tensor_become_two_tensors(tmp_path: Path):
    network = persistent({f"model.enc.{name}.weight": torch.ones(4) for name in ("a", "b")}, CONFIG)
    network.model.enc.b.weight = network.model.enc.a.weight
    import_weights(dump({"ema": network}, tmp_path / "shared.pkl"), tmp_path / "out.safetensors")
    assert load_file(tmp_path / "out.safetensors").keys() == {
        "model.enc.a.weight",
        "model.enc.b.weight",
    }


def test_a_good_file_is_read_and_runs_nothing(tmp_path: Path):
    import_weights(small(tmp_path / "good.pkl"), tmp_path / "out" / "good.safetensors")
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["good.safetensors"]


def test_a_missing_file_and_another_suffix_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.pkl"):
        import_weights(tmp_path / "gone.pkl", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"type out=.*a\.safetensors"):
        import_weights(small(tmp_path / "good.pkl"), tmp_path / "a.pt")


def test_the_limits_leave_room_for_the_largest_published_network(tmp_path: Path):
    """ImageNet's ADM has no more modules at a sixth of its width."""
    from_it = {
        "img_resolution": 64,
        "img_channels": 3,
        "label_dim": 10,
        "model_type": "DhariwalUNet",
    }
    state = DhariwalUNet(64, 3, 3, label_dim=10, model_channels=32).state_dict()
    path = dump(
        {"ema": persistent({f"model.{k}": v for k, v in state.items()}, from_it)},
        tmp_path / "adm.pkl",
    )
    operations = [opcode.name for opcode, _, _ in pickletools.genops(path.read_bytes())]
    assert 5 * len(operations) < opcodes.MAX_OPCODES
    assert 2 * sum(name.startswith("TUPLE") for name in operations) < opcodes.MAX_TUPLES
