"""The interpreter that workers are forked from; what it does is in `cli/encode_worker.py`.

A large tokenizer is loaded there once, in a second, and not by every worker again. Only the
standard library is imported here, so that a command can start it first and load its own libraries
at the same time.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import apr

# -P and the appended path: apr is imported from where it was, never from the current directory.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from apr.cli.encode_worker import main; main(int(sys.argv[2]))"
)
_STDERR = 2
# It has nothing left to do but to end its workers.
_END_S = 2.0


class NurseryDied(Exception):
    """The interpreter ended by itself; nobody can say any more how its workers ended."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class NurseryFailed(Exception):
    """It could not do what it was asked; `message` says why, for `messages.as_exception`."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(message)
        self.message = message


@dataclass
class Child:
    """A forked worker: what it reads, what it writes, and its process."""

    pid: int
    tasks: IO[bytes]
    messages: IO[bytes]

    def kill(self) -> None:
        """End it, whatever it is doing."""
        # Its number is its own until the nursery is asked for its status.
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait until it has let go of all files, and let go of its pipes."""
        while os.read(self.messages.fileno(), 1 << 16):
            pass
        self.messages.close()
        with suppress(BrokenPipeError):
            self.tasks.close()


class Nursery:
    """At most one interpreter at a time, which ends with this process, however that ends.

    Its methods raise NurseryDied when it has ended, NurseryFailed when it could not do what it was
    asked, and TimeoutError when it does not answer.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._has_forked = False

    def start(self) -> None:
        """Start it if it is not there; it loads libraries, and then waits for `load`."""
        if self._process is not None:
            return
        source = str(Path(apr.__file__).parents[1])
        self._control, theirs = socket.socketpair()
        self._has_forked = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, source, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                # What a library prints must not get into a command's result.
                stdout=_STDERR,
                pass_fds=[theirs.fileno()],
                # Ctrl-C reaches all of a terminal's processes; this one decides about that one.
                start_new_session=True,
            )

    def load(self, work_directory: Path, *, patience_s: float) -> None:
        """Have it load the encoding of a work directory; no answer may take longer than that."""
        self._control.settimeout(patience_s)
        self._ask({"kind": "load", "directory": str(work_directory)})

    def fork(self) -> Child:
        """A new worker for that encoding."""
        tasks, our_tasks = os.pipe()
        our_messages, messages = os.pipe()
        # Nobody else may hold its ends, here or there: that they are closed says that it is dead.
        try:
            pid = self._ask({"kind": "fork"}, [tasks, messages])["pid"]
        except BaseException:
            os.close(our_tasks)
            os.close(our_messages)
            raise
        finally:
            os.close(tasks)
            os.close(messages)
        self._has_forked = True
        return Child(pid, os.fdopen(our_tasks, "wb"), os.fdopen(our_messages, "rb"))

    def wait_for(self, child: Child) -> int:
        """How a worker ended: its exit code, or minus its signal."""
        return self._ask({"kind": "wait", "pid": child.pid})["status"]

    def stop(self) -> None:
        """End it and all its workers, if it is there."""
        if self._process is None:
            return
        self._control.close()
        if not self._has_forked:
            self._process.kill()  # It would look up only when everything has been loaded.
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        line = json.dumps(request).encode("utf-8") + b"\n"
        answer = b""
        try:
            if descriptors:
                sent = socket.send_fds(self._control, [line], descriptors)
                line = line[sent:]
            self._control.sendall(line)
            while not answer.endswith(b"\n"):
                data = self._control.recv(1 << 16)
                if not data:
                    raise self._died()
                answer += data
        except (BrokenPipeError, ConnectionResetError) as err:
            raise self._died() from err
        message = json.loads(answer)
        if message["kind"] != "done":
            raise NurseryFailed(message)
        return message

    def _died(self) -> NurseryDied:
        """The exception for one that has ended by itself, which is buried."""
        assert self._process is not None
        self._control.close()
        status = self._process.wait()
        self._process = None
        return NurseryDied(status)
