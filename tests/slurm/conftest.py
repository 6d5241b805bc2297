"""A throw-away cluster for the tests below."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm with two nodes; skips where it is not installed, unless DMD2_REQUIRE_SLURM is set."""
    if lacking := missing():
        message = (
            f"no Slurm here: {', '.join(lacking)} of Debian's slurmctld, slurmd, slurm-client and "
            "munge"
        )
        if os.environ.get("DMD2_REQUIRE_SLURM"):
            pytest.fail(message)
        pytest.skip(message)
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def workplace(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with this cluster's settings, and `dmd2` and `python` on the jobs' path."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "site.yaml").write_text("partition: main\n")
    (folder / "bin").mkdir()
    guarded = "from dmd2.cli.main import main\nif __name__ == '__main__':\n    main()\n"
    (folder / "bin" / "dmd2").write_text(f"#!{sys.executable}\n{guarded}")
    (folder / "bin" / "dmd2").chmod(0o755)
    cluster.environment |= {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DMD2_SITE": str(folder / "site.yaml"),
        "OMP_NUM_THREADS": "1",
    }
    return folder
