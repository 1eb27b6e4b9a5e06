"""The main program of a process that answers one question; `jobs/fresh_process.py` starts it."""

import os
import pickle
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection

from apr.errors import AprError
from apr.progress import Progress


def serve(connection: Connection) -> None:
    """Answer what is asked, with an answer or an exception; reports of progress come first."""
    for name, value in connection.recv().items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    question = connection.recv_bytes()
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()

    def report(progress: Progress) -> None:
        connection.send(("progress", progress))

    # Nobody may be left to hear it.
    with suppress(BrokenPipeError, ConnectionResetError):
        try:
            function, args, kwargs, reports = pickle.loads(question)
            answer = function(*args, **kwargs, **({"progress": report} if reports else {}))
            connection.send(("answer", answer))
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as err:
            connection.send(("exception", _that_travels(err)))


def _that_travels(err: Exception) -> Exception:
    """An exception as the other side can have it; the trace of one that is a bug goes with it."""
    if isinstance(err, AprError):
        return err
    err.add_note("In the fresh process:\n" + "".join(traceback.format_exception(err)))
    try:
        pickle.loads(pickle.dumps(err))
    except Exception:
        return RuntimeError("\n".join([repr(err), *err.__notes__]))
    return err


def _end_with_parent(connection: Connection) -> None:
    # Nothing more is sent: there is something to read when the other side is gone.
    connection.poll(None)
    os._exit(1)
