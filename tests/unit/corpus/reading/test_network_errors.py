"""The network's failures are told apart from a store's answers, with the drivers that are here."""

import errno
import socket
from collections.abc import Callable
from typing import Any

import fsspec
import pytest
import requests
import urllib3.exceptions

from apr.cli import main
from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import list_files
from apr.corpus.reading.network_errors import network_error
from apr.corpus.reading.remote import open_url
from apr.errors import IoFailed, NetworkFailed, PathNotFound


@pytest.fixture
def closed_port() -> int:
    """A port of this machine at which nobody answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@pytest.mark.parametrize("protocol", ["ftp", "webhdfs"])
def test_a_host_that_does_not_answer_is_the_networks_failure(
    protocol: str, closed_port: int
) -> None:
    url = f"{protocol}://127.0.0.1:{closed_port}/corpus"
    for read in (open_url, lambda url: list_files([url], drops=Account())):
        with pytest.raises(NetworkFailed) as refused:
            read(url)
        assert refused.value.id == "corpus.network-failed"
        assert refused.value.where == url


def test_the_command_ends_with_the_code_of_the_network(
    closed_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["corpus", "scan", f"ftp://127.0.0.1:{closed_port}/corpus"]) == 10
    assert "refused[corpus.network-failed]" in capsys.readouterr().err


# As the drivers' own, which are not installed here.
ClientConnectionError = type(
    "ClientConnectionError", (Exception,), {"__module__": "aiohttp.client_exceptions"}
)
DnsError = type("DnsError", (ClientConnectionError,), {"__module__": "a_wrapper"})
NoCredentials = type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})
Endpoint = type(
    "EndpointConnectionError",
    (type("ConnectionError", (Exception,), {"__module__": "botocore.exceptions"}),),
    {"__module__": "botocore.exceptions"},
)


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    "err",
    [
        ConnectionResetError("reset"),
        TimeoutError("slow"),
        socket.gaierror("no such host"),
        OSError(errno.EHOSTUNREACH, "no route"),
        requests.ReadTimeout("slow"),
        requests.exceptions.ChunkedEncodingError("cut"),
        urllib3.exceptions.ProtocolError("broken"),
        DnsError("no such host"),
        Endpoint("no such host"),
        caused(FileNotFoundError("http://x"), ConnectionRefusedError("nobody")),
        caused(OSError("x"), caused(ValueError("y"), requests.Timeout("z"))),
    ],
    ids=repr,
)
def test_what_the_network_did(err: Exception, memory_reader: Callable[[Exception], Any]) -> None:
    with pytest.raises(NetworkFailed):
        memory_reader(err)


@pytest.mark.parametrize(
    ("err", "kind"),
    [
        (FileNotFoundError("x"), PathNotFound),
        (PermissionError(errno.EACCES, "no"), IoFailed),
        (OSError(errno.EIO, "broken disk"), IoFailed),
        (requests.HTTPError("403"), IoFailed),
        (NoCredentials("none"), IoFailed),
        (ValueError("odd"), IoFailed),
    ],
    ids=repr,
)
def test_what_a_store_answered(
    err: Exception, kind: type[Exception], memory_reader: Callable[[Exception], Any]
) -> None:
    with pytest.raises(kind):
        memory_reader(err)
    assert network_error(err) is None


@pytest.fixture
def memory_reader(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], Any]:
    """Opens a URL whose driver raises what it is given."""

    def read(err: Exception) -> Any:
        def fail(*_args: Any, **_options: Any) -> Any:
            raise err

        monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", fail)
        return open_url("memory://apr-test/a.py")

    return read


def test_a_chain_of_causes_that_bites_its_tail_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert network_error(first) is None
