"""Encode in a process of its own, which may be killed on the way.

    python tests/encode_script.py CORPUS TOKENIZER OUTPUT OPTIONS_AS_JSON

`kill_at: N` ends the process by SIGKILL at its N-th report of progress; `kill_worker_at: N` does
that to its youngest worker.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.encode_processes import workers

from apr.progress import Progress
from apr.shards.encode import encode_corpus
from apr.shards.encoding.executors import make_executor
from apr.tokenizer.tokenizer import Tokenizer


def main(corpus: str, tokenizer: str, output: str, options: dict[str, Any]) -> None:
    kill_at, kill_worker_at = options.pop("kill_at", 0), options.pop("kill_worker_at", 0)
    num_reports = 0

    def progress(_progress: Progress) -> None:
        nonlocal num_reports
        num_reports += 1
        if num_reports == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if num_reports == kill_worker_at:
            os.kill(workers()[-1], signal.SIGKILL)

    encode_corpus(
        [Path(corpus)],
        tokenizer=Tokenizer.load(Path(tokenizer)),
        output=Path(output),
        executor=make_executor(num_workers=options.pop("num_workers", 1)),
        progress=progress,
        **options,
    )
    print(num_reports)


if __name__ == "__main__":
    main(*sys.argv[1:4], json.loads(sys.argv[4]))
