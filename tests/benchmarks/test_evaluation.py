"""The benchmark of the evaluation runs at a tiny size; what it measures is no test's business."""

import pytest

from dmd2.benchmarks.evaluation import evaluation


def test_every_path_has_a_row():
    pytest.importorskip("cleanfid", reason="clean-fid is not installed (extra: eval)")
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed (extra: eval)")
    head, _, ours, *theirs = evaluation(
        None, resolution=8, num_images=4, batch_size=2, num_repeats=1
    )
    assert head == "| path | images/s | ours / it |"
    assert ours.startswith("| ours") and ours.endswith("| 1.00 |")
    assert len(theirs) == 3
