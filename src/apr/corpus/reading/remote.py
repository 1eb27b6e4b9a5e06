"""Object stores and other places that have a URL, through fsspec.

Each store has its own driver and each driver its own exceptions, so whatever one raises becomes a
refusal here, at the call that raised it. What the network did is told apart from what the store
answered: only the former may pass by itself.
"""

import io
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from apr.corpus.reading.network_errors import network_error
from apr.errors import FeatureMissing, IoFailed, NetworkFailed, PathNotFound, Refusal, UsageRefusal


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path in it.

    Refuses: corpus.no-driver, corpus.unknown-protocol, corpus.network-failed, files.not-found,
    files.io-failed.
    """
    try:
        # fsspec has no types.
        from fsspec.core import (  # pyright: ignore[reportMissingTypeStubs]
            url_to_fs,  # pyright: ignore[reportUnknownVariableType]
        )
    except ImportError as err:
        raise _no_driver(url, err, "pip install 'apr[remote]'") from err
    with remote_refusals(url):
        try:
            return cast("tuple[Any, str]", url_to_fs(url))
        except ImportError as err:
            raise _no_driver(url, err, "install the package that it names") from err
        except ValueError as err:
            raise UsageRefusal(
                "corpus.unknown-protocol",
                url,
                found=str(err),
                expected="a protocol that fsspec knows, such as s3:// or gs://",
                fix="check the spelling of the URL",
            ) from err


def open_url(url: str) -> io.RawIOBase:
    """Open the file at a URL for reading.

    Refuses: as filesystem_of.
    """
    filesystem, path = filesystem_of(url)
    with remote_refusals(url):
        return _RemoteFile(url, filesystem.open(path, "rb"))


@contextmanager
def remote_refusals(url: str) -> Generator[None]:
    """Turn whatever a driver raises inside the block into refusals.

    Refuses: corpus.network-failed, files.not-found, files.io-failed.
    """
    try:
        yield
    except (FeatureMissing, UsageRefusal):
        raise
    except Exception as err:
        raise _refusal(url, err) from err


def _refusal(url: str, err: Exception) -> Refusal:
    # First, because drivers report a host that does not answer as a file that is not there.
    if (cause := network_error(err)) is not None:
        return NetworkFailed(
            "corpus.network-failed",
            url,
            found=f"{type(cause).__name__}: {cause}",
            expected="a store that answers",
            fix="check the network and the name of the host, then run the same command again",
        )
    if isinstance(err, FileNotFoundError):
        return PathNotFound(
            "files.not-found",
            url,
            found="no such file or directory",
            expected="an existing file or directory",
            fix="check the spelling of the URL",
        )
    return IoFailed(
        "files.io-failed",
        url,
        found=f"{type(err).__name__}: {err}",
        expected="a store that can be read",
        fix="check the credentials and the rights, then run the same command again",
    )


def _no_driver(url: str, err: ImportError, fix: str) -> FeatureMissing:
    return FeatureMissing(
        "corpus.no-driver", url, found=str(err), expected="a driver for this store", fix=fix
    )


class _RemoteFile(io.RawIOBase):
    """A file of a driver, whose exceptions are refusals."""

    def __init__(self, url: str, opened: Any) -> None:
        super().__init__()
        self._url = url
        self._opened = opened

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        with remote_refusals(self._url):
            return self._opened.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        with remote_refusals(self._url):
            return self._opened.seek(offset, whence)

    def tell(self) -> int:
        return self._opened.tell()

    def close(self) -> None:
        if not self.closed:
            with remote_refusals(self._url):
                self._opened.close()
        super().close()
