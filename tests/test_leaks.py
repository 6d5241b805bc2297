"""Many runs in one process, as in a sweep or a notebook, leave nothing behind."""

import gc
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from torch import nn

from dmd2.cli.main import main

SMALL = [
    "experiment=toy2d_dmd2",
    "max_iterations=3",
    "data.batch_size=8",
    "teacher.pretrain.max_iterations=2",
    "metric.num_samples=30",
    "metric.batch_size=30",
    "metric.teacher_steps=[1]",
    "log_every=1",
]


def left() -> dict[str, object]:
    """What this process holds: threads, descriptors, signal handlers, modules in memory."""
    gc.collect()
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {
        "threads": Counter(thread.name for thread in threading.enumerate()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "handlers": handlers,
        "modules": sum(issubclass(type(x), nn.Module) for x in gc.get_objects()),
    }


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_runs_in_one_process_leave_no_thread_descriptor_handler_or_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    monkeypatch.setattr(sys, "argv", sys.argv)
    found = []
    for i in range(4):
        sys.argv = ["dmd2", "train", *SMALL, f"paths.run=run{i}"]
        main()
        found.append(left())
    assert found[1:] == [found[1]] * 3
    assert found[0]["handlers"] == found[1]["handlers"]
