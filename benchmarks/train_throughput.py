"""Training tokens per second of the reference model, beside those who train it otherwise.

    python benchmarks/train_throughput.py [--rounds 3] [--json] [...]

is `apr bench train` with the peers that are installed, each also with apr's own settings; further
options are passed on. Quote the ratios: hosts drift, the ratio of neighbouring rounds does not.
"""

import sys
from importlib.util import find_spec

from apr.cli.main import main

PEERS = ["plain"]
if find_spec("transformers") and find_spec("accelerate"):
    PEERS += ["hf-trainer", "hf-trainer-bf16-compile"]
if find_spec("litgpt"):
    PEERS.append("litgpt")

if __name__ == "__main__":
    words = ["--against", ",".join(PEERS), "--share-settings", "--rounds", "3", "--steps", "10"]
    main(["bench", "train", *words, *sys.argv[1:]])
