"""Files of captions in the shapes that users have: what is no text is refused, and nothing is lost
without a word.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from test_latents import beside, made, png

from any_json import ANY_JSON
from dmd2.cli.errors import one_line
from dmd2.data.captions import caption_of, read_captions
from dmd2.data.preparation.captioned import captioned

MARK = "\ufeff".encode()
NO_TEXTS = [["a", "b"], [], {"en": "a"}, 3, 0, 1.5, float("nan"), float("inf"), True, False]


def written(path: Path, data: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def parquet_of(path: Path, values: list) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    rows = [{"caption": value} for value in values]
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("value", NO_TEXTS, ids=repr)
def test_what_is_no_text_is_refused_by_file_and_row(tmp_path: Path, value) -> None:
    lines = [json.dumps({"caption": caption}) for caption in ("a", value)]
    table = written(tmp_path / "a.jsonl", "\n\n".join(lines))
    with pytest.raises(ValueError, match=r"the caption in line 3 of \S+a\.jsonl is "):
        read_captions(table)
    with pytest.raises(ValueError, match=r"the caption in row 2 of \S+a\.parquet is "):
        read_captions(parquet_of(tmp_path / "a.parquet", [None, value]))
    source = tmp_path / "images"
    written(source / "a.png", png(0))
    written(source / "a.json", json.dumps({"caption": value}))
    with pytest.raises(ValueError, match=r"the caption in a\.json in \S+images is "):
        captioned(source, "caption")
    (source / "a.json").unlink()
    written(source / "metadata.jsonl", json.dumps({"file_name": "a.png", "caption": value}))
    with pytest.raises(ValueError, match=r"the caption in line 1 of metadata\.jsonl in \S+ is "):
        captioned(source, "caption")
    written(source / "metadata.jsonl", json.dumps({"file_name": value, "caption": "a"}))
    with pytest.raises(ValueError, match=r"line 1 of metadata\.jsonl in \S+ has no text"):
        captioned(source, "caption")


@pytest.mark.parametrize(
    "name, data",
    [
        ("a.txt", "a dot\ntwo dots".encode("utf-16-le")),
        ("a.csv", "caption\na dot\n".encode("utf-16-le")),
        ("a.jsonl", b'{"caption": "a\\u0000dot"}'),
    ],
)
def test_text_in_utf_16_that_reads_as_utf_8_is_refused(
    tmp_path: Path, name: str, data: bytes
) -> None:
    with pytest.raises(ValueError, match="UTF-16; save it as UTF-8"):
        read_captions(written(tmp_path / name, data))
    source = tmp_path / "images"
    written(source / "a.png", png(0))
    written(source / "a.txt", "a dot".encode("utf-16-le"))
    with pytest.raises(ValueError, match="UTF-16; save it as UTF-8"):
        captioned(source, "caption")


@given(row=ANY_JSON | ANY_JSON.map(lambda caption: {"caption": caption}))
@example(row={"caption": "\ud83d"})
def test_a_caption_is_a_text_or_an_error_whatever_json_says(row: Any) -> None:
    try:
        found = caption_of(row, "caption", "line 1", "x")
    except ValueError as error:
        assert "line 1" in str(error)
    else:
        found.encode()
        assert found == (row["caption"] or "")


@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "a red dot, round\nred\n"),
        ("A.TXT", "a red dot, round\nred"),
        ("a.csv", 'caption,url\n"a red dot, round",u\nred,u\n'),
        ("a.csv", '"url","caption"\nu,"a red dot, round"\nu,red\n'),
        ("a.csv", "caption;url\na red dot, round;u\nred;u\n"),
        ("a.csv", "url; caption \nu;a red dot, round\nu;red\n"),
        ("a.csv", "url\tcaption\nu\ta red dot, round\nu\tred\n"),
        ("a.jsonl", '{"caption": "a red dot, round"}\n{"caption": "red"}\n'),
    ],
)
def test_marks_line_ends_and_delimiters_of_windows_are_no_part(
    tmp_path: Path, capsys, mark: bytes, end: str, name: str, text: str
) -> None:
    path = written(tmp_path / name, mark + text.replace("\n", end).encode())
    assert read_captions(path) == ["a red dot, round", "red"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_another_encoding_is_one_line(tmp_path: Path, name: str, encoding: str) -> None:
    path = written(tmp_path / name, "caption\nélan\n".encode(encoding))
    with pytest.raises(ValueError, match=rf"{name} cannot be read .* save it as UTF-8"):
        read_captions(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("caption,url\na dot, round,u\n", r"line 2 of \S+ has more cells.*in quotes"),
        ('caption,url\n"a",u\n"a dot,u\nred,u\n', r"line 3 on of \S+a\.csv cannot be read.*quotes"),
        ("caption\n" + "a" * 200_000, r"line 2 on of \S+a\.csv cannot be read .*field"),
        ("caption,url, caption\na,u,b\n", r"a\.csv has two columns caption; rename"),
        ("text;url\na;u\n", "has no column caption, it has text;url"),
    ],
)
def test_a_csv_that_would_lose_text_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_captions(written(tmp_path / "a.csv", text))


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"caption": "a"}\n{"caption": "a", "caption": "b"}')
    with pytest.raises(ValueError, match=r"line 2 of \S+a\.jsonl .* 'caption' comes twice"):
        read_captions(path)
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_arrays([["a"], ["b"]], names=["caption", "caption"])
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has two columns caption"):
        read_captions(str(tmp_path / "a.parquet"))


def test_no_bit_of_a_parquet_file_loses_rows(tmp_path: Path) -> None:
    whole = Path(parquet_of(tmp_path / "a.parquet", [f"dot {i}" for i in range(40)])).read_bytes()
    for at in range(4, len(whole), 5):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        try:
            captions = read_captions(written(tmp_path / "a.parquet", bytes(data)))
        except ValueError as error:
            assert "a.parquet" in str(error) and one_line(error)
        else:
            assert len(captions) == 40


def test_a_checksum_of_a_page_is_compared(tmp_path: Path) -> None:
    pyarrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    table = pyarrow.Table.from_pylist([{"caption": "a red dot"}])
    parquet.write_table(table, tmp_path / "a.parquet", write_page_checksum=True, compression="none")
    data = (tmp_path / "a.parquet").read_bytes()
    path = written(tmp_path / "a.parquet", data.replace(b"red", b"rod", 1))
    with pytest.raises(ValueError, match=r"a\.parquet is no Parquet file, or damaged"):
        read_captions(path)


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"a\.parquet is no Parquet file"):
        read_captions(written(tmp_path / "a.parquet", b"PAR1" + bytes(40)))


@given(
    damage=st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=1)), min_size=1)
)
def test_a_damaged_table_is_one_line_or_texts(
    damage: list[tuple[int, bytes]], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    for name in ("a.parquet", "a.csv", "a.jsonl", "a.txt"):
        path = tmp_path / name
        if not path.with_suffix(f"{path.suffix}.whole").exists():
            whole = path.with_suffix(f"{path.suffix}.whole")
            if name == "a.parquet":
                parquet_of(whole, ["a red dot", "red", None] * 9)
            else:
                line = {"a.jsonl": json.dumps({"caption": "a red dot"})}.get(name, '"a red dot"')
                written(whole, "\n".join(["caption", line, line][name != "a.csv" :]))
        data = bytearray(path.with_suffix(f"{path.suffix}.whole").read_bytes())
        for at, byte in damage:
            data[at % len(data)] = byte[0]
        path.write_bytes(data)
        try:
            assert all(isinstance(caption, str) for caption in read_captions(str(path)))
        except ValueError as error:
            assert name in str(error) and one_line(error)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "a\n\na\n  \nb\na\n", "of 4 captions 2 the same as one before"),
        ("a.csv", "url,caption\nu\nv,a\nw,\n", "of 3 captions 2 empty"),
        (
            "a.jsonl",
            '{"caption": null}\n{"caption": " "}\n{"caption": "a"}\n{"caption": "a"}',
            "of 4 captions 2 empty and 1 the same as one before",
        ),
    ],
)
def test_empty_and_doubled_captions_are_counted_once(
    tmp_path: Path, capsys, name: str, text: str, said: str
) -> None:
    path = written(tmp_path / name, text)
    read_captions(path)
    read_captions(path)
    assert capsys.readouterr().err == f"dmd2: {path}: {said}\n"


def test_the_report_of_latents_counts_them_too(tmp_path: Path) -> None:
    source = beside(tmp_path / "images")
    written(source / "3.txt", "")
    written(source / "4.txt", MARK + b"caption 0\r\n")
    assert "of 5 captions 1 empty and 1 the same as one before" in made(source, tmp_path / "out")


def test_metadata_of_windows_finds_its_images(tmp_path: Path) -> None:
    written(tmp_path / "sub/b/a.png", png(0))
    line = json.dumps({"file_name": "b\\a.png", "caption": "a dot"}).encode()
    written(tmp_path / "sub/metadata.jsonl", MARK + line + b"\r\n\r\n")
    assert captioned(tmp_path, "caption").class_names == ["a dot"]
    written(tmp_path / "sub/metadata.jsonl", line + b"\n" + line)
    with pytest.raises(ValueError, match=r"sub/b/a\.png has two captions"):
        captioned(tmp_path, "caption")


@pytest.mark.parametrize("first", [b"", MARK])
def test_a_text_beside_goes_before_json_and_that_before_metadata(tmp_path: Path, first) -> None:
    written(tmp_path / "a.png", png(0))
    written(tmp_path / "metadata.jsonl", '{"file_name": "a.png", "caption": "listed"}')
    assert captioned(tmp_path, "caption").class_names == ["listed"]
    written(tmp_path / "a.json", first + b'{"caption": "json"}')
    assert captioned(tmp_path, "caption").class_names == ["json"]
    written(tmp_path / "a.txt", first + b"text")
    assert captioned(tmp_path, "caption").class_names == ["text"]
    written(tmp_path / "a.txt", b"\xff\xfe\0")
    with pytest.raises(ValueError, match=r"a\.txt in \S+ cannot be read"):
        captioned(tmp_path, "caption")


def test_a_row_is_of_the_file_that_it_names_and_of_no_other_of_its_stem(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).write_bytes(b"")
    rows = [{"file_name": "a.jpg", "caption": "jpg"}, {"file_name": "a.png", "caption": "png"}]
    written(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    assert captioned(tmp_path, "caption").class_names == ["jpg", "png"]
    written(tmp_path / "metadata.jsonl", json.dumps(rows[0]))
    with pytest.raises(ValueError, match=r"1 of 2 images .* have no caption, e\.g\. a\.png"):
        captioned(tmp_path, "caption")
    (tmp_path / "a.png").unlink()
    written(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    assert captioned(tmp_path, "caption").passed_over == {"captions of no image": (1, "a.png")}


def test_two_captions_of_one_image_are_refused_or_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    written(tmp_path / "a.txt", "one")
    written(tmp_path / "a.json", '{"caption": "one"}')
    assert captioned(tmp_path, "caption").passed_over == {}
    written(tmp_path / "a.json", '{"caption": "other"}')
    layout = captioned(tmp_path, "caption")
    assert layout.class_names == ["one"]
    assert layout.passed_over == {"other captions of an image with several": (1, "a.png")}
    written(tmp_path / "a.TXT", "two")
    with pytest.raises(ValueError, match=r"a has two captions, the second in a\.(txt|TXT) in "):
        captioned(tmp_path, "caption")
