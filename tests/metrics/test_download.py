"""Weights are fetched once, checked before they get their name, and asked for in one line where
that fails.
"""

import hashlib
import multiprocessing

import pytest

from dmd2.metrics.download import fetched

CONTENT = b"some weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url(tmp_path):
    """The address of a file."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "net.pt").write_bytes(CONTENT)
    return (tmp_path / "there" / "net.pt").as_uri()


def test_a_file_is_fetched_once_and_then_found(tmp_path, url, capsys):
    path = fetched(tmp_path / "here", url, SHA256, fetch=True)
    assert path.read_bytes() == CONTENT and path.name == "net.pt"
    (tmp_path / "there" / "net.pt").unlink()
    assert fetched(tmp_path / "here", url, SHA256, fetch=True) == path
    assert capsys.readouterr().out.count("fetching") == 1


def test_another_content_never_gets_the_name(tmp_path, url):
    with pytest.raises(ValueError, match="SHA-256"):
        fetched(tmp_path / "here", url, "0" * 64, fetch=True)
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".net.pt.lock"]


def test_without_a_network_the_line_says_what_to_put_where(tmp_path):
    gone = (tmp_path / "gone.pt").as_uri()
    for fetch in (True, False):
        with pytest.raises(OSError, match=f"{gone}.*{tmp_path / 'here' / 'gone.pt'}") as error:
            fetched(tmp_path / "here", gone, SHA256, fetch)
        assert "\n" not in str(error.value)


def test_of_many_processes_one_fetches(tmp_path, url, capfd):
    spawn = multiprocessing.get_context("spawn")
    ranks = [
        spawn.Process(target=fetched, args=(tmp_path / "here", url, SHA256, True)) for _ in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert capfd.readouterr().out.count("fetching") == 1
