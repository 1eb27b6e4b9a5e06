"""The main program of a worker process of an encoding; `shards/encoding/pool.py` starts it.

Tasks come in on stdin and messages go out on stdout, so nothing else may be printed there.
"""

import os
import signal
import sys


def main(work_directory: str) -> None:
    """Serve tasks until stdin ends."""
    # Ctrl-C reaches the whole terminal; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One process is one core. The libraries read this when they are loaded.
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from pathlib import Path

    from apr.shards.encoding.worker import serve

    try:
        serve(Path(work_directory), sys.stdin.buffer, messages)
    except BrokenPipeError:
        # The parent was killed: nobody waits for this part. Its own flush would fail again.
        os._exit(1)
