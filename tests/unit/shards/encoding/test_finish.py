"""The last step of an encoding, on a disk that fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tokenizer_files import tokenizer

from apr.shards.encode import encode_corpus

FAILING = """
import sys
from pathlib import Path
from tests.kills.faults import Fault, plant
from tests.tokenizer_files import tokenizer
from apr.errors import Refusal
from apr.shards.encode import encode_corpus
here, operation = Path(sys.argv[1]), sys.argv[2]
plant(here / "out.partial", names=here / "names", fault=Fault(1, "EIO", operation))
try:
    encode_corpus(
        [here / "in.jsonl"], tokenizer=tokenizer(), output=here / "out", shard_tokens=20,
        encoder="reference", num_threads=2,
    )
except Refusal as refusal:
    print(refusal.id, refusal.found)
"""


@pytest.mark.parametrize("name", ["documents.jsonl.zst", "shard-00001.bin", "shard-00002.idx"])
def test_a_file_that_does_not_reach_the_disk_is_refused(tmp_path: Path, name: str) -> None:
    """Only the first time that it is asked to: the disk may have forgotten it by the second."""
    rows = [json.dumps({"content": "hello " * 10}) + "\n" for _ in range(6)]
    (tmp_path / "in.jsonl").write_text("".join(rows))
    words = [sys.executable, "-c", FAILING, str(tmp_path), f"fsync shards/{name}"]
    environment = os.environ | {"PYTHONPATH": ":".join([str(Path.cwd()), *sys.path])}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.stdout == "files.io-failed Input/output error\n", done.stderr
    assert not (tmp_path / "out").exists()
    again = encode_corpus(
        [tmp_path / "in.jsonl"],
        tokenizer=tokenizer(),
        output=tmp_path / "out",
        shard_tokens=20,
        encoder="reference",
    )
    assert (again.total_documents, again.shard_count) == (6, 6)
    assert json.loads((tmp_path / "out" / "encode.json").read_text())["num_tasks_resumed"] == 1
