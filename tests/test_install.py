"""Which PyTorch `make install` asks uv for, by a stand-in for uv; the index is a server here."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "index" / "torch").mkdir(parents=True)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "index")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def backends(folder: Path, index: str, *words: str, **environment: str) -> list[str]:
    """The backend of each call of uv, "usual" for none; one fails where `folder`/fail is."""
    python = f'case "$1" in -m) exit 0;; *) exec {sys.executable} "$@";; esac'
    program(folder / "venv/bin/python", python)
    calls, fail = folder / "calls", folder / "fail"
    calls.touch()
    program(
        folder / "venv/bin/uv",
        f'echo "${{UV_TORCH_BACKEND:-usual}}" >> {calls}; echo "$@"; ! rm {fail} 2> /dev/null',
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "PIP_", "MAKE"))}
    path = {"PATH": f"{folder / 'path'}:{kept['PATH']}"}
    command = ["make", "-C", str(ROOT), "install", f"VENV={folder}/venv", f"CPU_INDEX={index}"]
    done = subprocess.run(
        [*command, *words], env=kept | path | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(word.partition("=")[2] in done.stdout for word in words)
    return calls.read_text().split()


HAS_GPU = any(Path(folder, "nvidia-smi").exists() for folder in os.environ["PATH"].split(":"))
alone = pytest.mark.skipif(HAS_GPU or sys.platform != "linux", reason="wants Linux without a GPU")


@alone
def test_without_a_gpu_it_has_no_cuda(tmp_path: Path, index: str) -> None:
    assert backends(tmp_path, index, "TORCH=torch==2.12.0") == ["cpu"]


@alone
def test_where_the_index_lacks_something_it_is_the_usual_one(tmp_path: Path, index: str) -> None:
    (tmp_path / "fail").touch()
    assert backends(tmp_path, index) == ["cpu", "usual"]


def test_where_the_index_does_not_answer_it_is_the_usual_one(tmp_path: Path) -> None:
    assert backends(tmp_path, NOWHERE) == ["usual"]


def test_with_a_gpu_it_is_the_usual_one(tmp_path: Path, index: str) -> None:
    program(tmp_path / "path" / "nvidia-smi", "")
    assert backends(tmp_path, index) == ["usual"]


@pytest.mark.parametrize(
    ("said", "backend"),
    [({"UV_TORCH_BACKEND": "cu130"}, "cu130"), ({"PIP_INDEX_URL": "http://127.0.0.1:9"}, "usual")],
)
def test_what_was_said_goes_before(
    said: dict[str, str], backend: str, tmp_path: Path, index: str
) -> None:
    assert backends(tmp_path, index, **said) == [backend]
