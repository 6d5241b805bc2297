"""Numbers of samples are in a score's name where there are several."""

import pytest

from dmd2.evaluation.scores import SampleCounts


def test_a_lone_number_is_not_named_and_several_are():
    assert SampleCounts(50000).name("fid", 50000) == "fid"
    assert [SampleCounts([10000, 50000]).name("fid", num) for num in (10000, 50000, 130)] == [
        "fid_10k",
        "fid_50k",
        "fid_130",
    ]


@pytest.mark.parametrize("wrong", [1, [], [50, 20], [20, 20], [0, 5]])
def test_numbers_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValueError, match="num_samples"):
        SampleCounts(wrong)
