"""Class folders are numbered by their names, in the order in which people count."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st

from dmd2.data.preparation.class_folders import natural
from dmd2.data.preparation.decode import Decoder
from dmd2.data.preparation.layout import lay_out
from dmd2.data.preparation.recipes import images

ORDERS = [
    [str(i) for i in range(12)],
    [str(i) for i in range(1, 12)],
    [f"{i:02d}" for i in range(12)],
    [f"class{i}" for i in (0, 1, 2, 9, 10, 11, 100)],
    ["Zoe", "ant", "ant2", "ant10", "ant10a", "cat"],
    ["n01440764", "n01443537", "n02484975"],
    ["1440764", "2484975", "10000000"],
    ["v1.2", "v1.10", "v2.1"],
    ["".join(chr(0x660 + int(digit)) for digit in str(i)) for i in range(12)],  # Arabic-Indic
    ["class" + chr(0x966 + 9), "class" + chr(0x966 + 1) + chr(0x966)],  # Devanagari 9, 10
]


@pytest.mark.parametrize("names", ORDERS, ids=lambda names: names[-1])
@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
@pytest.mark.parametrize("split", ["", "train/"])
@settings(max_examples=4)
@given(data=st.data())
def test_labels_follow_the_names_in_any_packing_and_order(
    tmp_path, pack, names, suffix, split, data
):
    inside = [f"{split}{name}/{i}.png" for name in names for i in range(2)]
    shuffled = data.draw(st.permutations(inside))
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    layout = lay_out(pack(folder / f"a{suffix}", dict.fromkeys(shuffled, b"")), 0.0)
    assert layout.class_names == names
    assert all(
        names[label] == name.removeprefix(split).split("/")[0]
        for name, label in layout.labels.items()
    )


NAME = st.text("01a9-²", max_size=6) | st.text(max_size=6)


@given(names=st.lists(NAME, unique=True), data=st.data())
@example(names=["9" * 9000, "1" + "0" * 9000, "9", "10"], data=None)
def test_natural_order_is_one_order_of_all_names(names: list[str], data) -> None:
    once = sorted(names, key=natural)
    shuffled = names[::-1] if data is None else data.draw(st.permutations(names))
    assert sorted(shuffled, key=natural) == once
    assert [natural(name) for name in once] == sorted(map(natural, names))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ("0 1 3", "0 to 3, and none is 2"),
        ("7 3", "none is 4"),
        ("1 01 2", "one number comes twice"),
    ],
)
def test_numbers_with_a_gap_are_refused(tmp_path: Path, pack, numbers: str, words: str) -> None:
    source = pack(tmp_path / "a", {f"{number}/a.png": b"" for number in numbers.split()})
    with pytest.raises(ValueError, match=f"{words}.* rename"):
        lay_out(source, 0.0)


def test_the_report_names_the_labels(tmp_path: Path, pack, files) -> None:
    image = files["cat/0.png"]
    few = pack(tmp_path / "few", {f"{name}/a.png": image for name in ("10", "9")})
    assert "labels are 0 9, 1 10" in images(few, tmp_path / "1", Decoder(6), 0.0, None, "stop")
    many = pack(tmp_path / "many", {f"c{i}/a.png": image for i in range(12)})
    lines = images(many, tmp_path / "2", Decoder(6), 0.0, None, "stop")
    assert any("8 c8, 9 c9 and 2 more, all in" in line for line in lines)


@pytest.mark.parametrize(
    "names",
    [("a", " a"), ("a ", "a"), ("1", " 1", "2"), ("01440764", "1440764"), ("e\u0301", "\xe9")],
    ids=ascii,
)
def test_class_folders_that_look_the_same_are_refused_by_both_names(
    tmp_path: Path, pack, names
) -> None:
    source = pack(tmp_path / "a.tar", {f"{name}/a.png": b"" for name in names})
    with pytest.raises(ValueError, match=r"a\.tar has the class folders .* merge or rename") as got:
        lay_out(source, 0.0)
    assert str(got.value).isascii() and ascii(names[0]) in str(got.value)


def test_splits_are_known_in_capitals(tmp_path: Path, pack) -> None:
    names = [f"{split}/{kind}/a.png" for split in ("Train", "Val") for kind in "ab"]
    layout = lay_out(pack(tmp_path / "a.zip", dict.fromkeys(names, b"")), 0.0)
    assert layout.class_names == ["a", "b"] and len(layout.train) == len(layout.test) == 2
    both = dict.fromkeys([*names, "train/a/b.png"], b"")
    with pytest.raises(ValueError, match=r"Train, Val, train in \S+b\.zip two are the same split"):
        lay_out(pack(tmp_path / "b.zip", both), 0.0)


def test_an_empty_class_folder_is_said(tmp_path: Path) -> None:
    for name in ("cat/a.png", "fox/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "dog").mkdir()
    assert lay_out(tmp_path, 0.0).passed_over == {"empty folder": (1, "dog")}


def test_a_class_to_test_alone_is_refused(tmp_path: Path) -> None:
    """Of dog's label every class behind it in train/ would be one off."""
    for name in ("train/cat", "train/fox", "test/cat", "test/dog"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="has the class dog to test and not to train on"):
        lay_out(tmp_path, 0.0)


@pytest.mark.parametrize("name", ["x/dataset.json", "DATASET.json"])
def test_labels_in_another_place_are_refused(name: str, tmp_path: Path) -> None:
    for place in ("x/a.png", name):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text('{"labels": [["a.png", 1]]}')
    with pytest.raises(ValueError, match=rf"{name} in .* would not be read: labels are in dataset"):
        lay_out(tmp_path, 0.0)
