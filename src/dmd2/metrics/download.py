"""Downloads a detector's published weights once, and checks their SHA-256."""

import urllib.request
from collections.abc import Callable
from pathlib import Path

from dmd2.io.files import locked
from dmd2.io.progress import bytes_bar, hashed
from dmd2.io.replace import replacing


def fetched(folder: str | Path, url: str, sha256: str | None, fetch: bool) -> Path:
    """The file of `url` in `folder`; where it is missing and `fetch` is true, it is downloaded.

    Raises FileNotFoundError where it is missing, ConnectionError where the download fails, and
    ValueError where its SHA-256 is not `sha256` (None checks nothing).
    """
    # The URL's last part: a user who downloads by hand gets this name from the browser.
    path = Path(folder) / url.rsplit("/", 1)[1]
    if fetch and not path.exists():
        with locked(path):
            # Asked again: another process may have downloaded it while this one waited.
            if not path.exists():
                _download(url, path, sha256)
    if not path.exists():
        raise FileNotFoundError(f"no weights: download {url} to {path.absolute()}")
    _check(path, url, sha256)
    return path


def converted(
    folder: str | Path,
    name: str,
    url: str,
    sha256: str | None,
    fetch: bool,
    convert: Callable[[Path, Path], None],
) -> str:
    """The folder `name` in `folder` that `convert(file, folder)` makes of the file of `url`, once.

    Raises what `fetched` and `convert` raise, and leaves no half of a folder.
    """
    made = Path(folder) / name
    with locked(made):
        if not made.exists():
            file = fetched(folder, url, sha256, fetch)
            with replacing(made) as half:
                half.mkdir(exist_ok=True)
                convert(file, half)
    return str(made)


def _download(url: str, path: Path, sha256: str | None) -> None:
    print(f"fetching {url}, once")
    # Under another name until it is complete and checked: an interrupted download leaves no file.
    try:
        with replacing(path) as partial:
            with urllib.request.urlopen(url, timeout=60) as answer, partial.open("wb") as file:
                size = answer.headers.get("Content-Length")
                with bytes_bar(f"fetching {path.name}", int(size) if size else None) as bar:
                    while block := answer.read(2**20):
                        file.write(block)
                        bar.update(len(block))
            _check(partial, url, sha256)
    except OSError as error:
        raise ConnectionError(
            f"cannot fetch {url} ({error}): put the file at {path.absolute()}"
        ) from error


def _check(path: Path, url: str, sha256: str | None) -> None:
    if sha256 is not None and (found := hashed(path)) != sha256:
        raise ValueError(
            f"{path} has SHA-256 {found} instead of {sha256}: delete it and download {url}"
        )
