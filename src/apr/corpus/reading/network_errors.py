"""Which exceptions say that the network failed, and not that a store said no.

A store that answers, even with a refusal, was reached. Drivers are known by the module and the name
of their exceptions, as most of them are not installed.
"""

import errno
import socket

_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_OF_DRIVERS = {
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
    "azure": {"ServiceRequestError", "ServiceResponseError"},
    "botocore": {"ConnectionError", "HTTPClientError"},
    "google": {"TransportError"},
    "httpx": {"TransportError"},
    "requests": {"ChunkedEncodingError", "ConnectionError", "Timeout"},
    "urllib3": {"ProtocolError", "RequestError", "TimeoutError"},
}


def network_error(err: BaseException) -> BaseException | None:
    """The exception that says that the network failed: this one, or one that caused it."""
    seen: set[int] = set()
    cause: BaseException | None = err
    while cause is not None and id(cause) not in seen:
        if _is_of_network(cause):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__
    return None


def _is_of_network(err: BaseException) -> bool:
    if isinstance(err, ConnectionError | TimeoutError | socket.gaierror):
        return True
    if isinstance(err, OSError) and err.errno in _UNREACHABLE:
        return True
    return any(
        kind.__name__ in _OF_DRIVERS.get(kind.__module__.partition(".")[0], ())
        for kind in type(err).__mro__
    )
