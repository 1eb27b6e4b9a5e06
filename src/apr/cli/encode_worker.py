"""The program of the interpreter that workers are forked from, and of the workers.

`shards/encoding/nursery.py` starts it, and asks it through a socket: to load an encoding, to fork a
worker that reads tasks from one pipe and writes messages to another, and how a worker ended. It
never does anything else, so that the process that forks has run nothing but the loading of
libraries that wait for nobody, and has one thread.
"""

import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from apr.shards.encoding.task import Encoding

_REQUEST_BYTES = 1 << 16
_PIPES = 2
_THREADS = "/proc/self/task"
# A thread that has been joined is gone a moment later.
_ENDING_S = 3.0


def main(control: int) -> NoReturn:
    """Answer until nobody asks any more, or this process is a worker that has served."""
    # Ctrl-C reaches the whole terminal; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One process is one core. The libraries read this when they are loaded.
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # A collection looks at everything that was loaded; in a worker it would copy it, too.
    gc.disable()
    from apr.shards.encoding import messages, worker, workplace  # noqa: F401  for those forked

    _Nursery(socket.socket(fileno=control)).serve()


class _Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._parts = Path()
        self._encoding: Encoding | None = None
        self._pids: set[int] = set()

    def serve(self) -> NoReturn:
        from apr.shards.encoding.messages import as_message

        while request := self._receive():
            try:
                answer = {"kind": "done", **self._answer(*request)}
            except Exception as err:
                answer = as_message(err)
            self._control.sendall(json.dumps(answer).encode("utf-8") + b"\n")
        # The parent has ended or wants it so. Whoever was not asked for is still ours to end.
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids:
            os.waitpid(pid, 0)
        os._exit(0)

    def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        try:
            data, descriptors, *_ = socket.recv_fds(self._control, _REQUEST_BYTES, _PIPES)
            while data and not data.endswith(b"\n"):
                more = self._control.recv(_REQUEST_BYTES)
                data = data + more if more else b""
        except ConnectionResetError:
            return None
        return (json.loads(data), descriptors) if data else None

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        if request["kind"] == "load":
            self._load(Path(request["directory"]))
            return {}
        if request["kind"] == "fork":
            return {"pid": self._fork(*descriptors)}
        _, status = os.waitpid(request["pid"], 0)
        self._pids.remove(request["pid"])
        return {"status": os.waitstatus_to_exitcode(status)}

    def _load(self, work_directory: Path) -> None:
        from apr.shards.encoding.workplace import Workplace

        workplace = Workplace(work_directory)
        self._parts = workplace.parts
        self._encoding = workplace.load_encoding()
        _require_one_thread()
        gc.freeze()

    def _fork(self, tasks: int, messages: int) -> int:
        assert self._encoding is not None, "it is loaded before anyone is forked"
        pid = os.fork()
        if pid == 0:
            self._control.close()
            _work(self._encoding, self._parts, tasks, messages)
        # The next one must not have them: that they are closed says that this one is dead.
        os.close(tasks)
        os.close(messages)
        self._pids.add(pid)
        return pid


def _require_one_thread() -> None:
    """A lock that another thread holds while this one forks would be held for ever in a worker."""
    assert threading.active_count() == 1, threading.enumerate()
    if not os.path.isdir(_THREADS):
        return
    until_s = time.monotonic() + _ENDING_S
    while (num_threads := len(os.listdir(_THREADS))) > 1:
        assert time.monotonic() < until_s, f"a library keeps {num_threads - 1} threads"
        time.sleep(0.001)


def _work(encoding: "Encoding", parts: Path, tasks: int, messages: int) -> NoReturn:
    from apr.shards.encoding.worker import serve

    status = 1
    try:
        gc.enable()
        with os.fdopen(tasks, "rb") as lines, os.fdopen(messages, "wb") as target:
            serve(encoding, parts=parts, tasks=lines, messages=target)
        status = 0
    except BrokenPipeError:
        pass  # The parent was killed: nobody waits for this part.
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)
