"""Files that are whole or not there, and a claim that ends with its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmd2.files import claim, read_json, write_bytes

HOLD = "import sys; from pathlib import Path; from dmd2.files import claim; lock = claim(Path(sys.argv[1]));"
WAIT = "print('held', flush=True); sys.stdin.read()"
FORK = "import os, time\nif os.fork() == 0: print('held', flush=True); time.sleep(60)\nos.wait() if 0 else os._exit(0)"


def holder(path: Path, then: str) -> subprocess.Popen[str]:
    """A process that has claimed `path` and gone on to `then`."""
    command = [sys.executable, "-c", f"{HOLD}{then}", str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process
