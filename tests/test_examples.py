"""The examples run as they are."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_ring_is_distilled_to_one_step_without_hydra(tmp_path: Path) -> None:
    source = (EXAMPLES / "toy2d.py").read_text()
    assert "hydra" not in source.split('"""')[2]
    command = [sys.executable, str(EXAMPLES / "toy2d.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    share, modes = done.stdout.strip().splitlines()[-2:]
    assert modes == "8 of 8 modes are reached" and int(share.partition("%")[0]) > 50


def test_every_example_is_run_here() -> None:
    assert [path.name for path in EXAMPLES.glob("*.py")] == ["toy2d.py"]
