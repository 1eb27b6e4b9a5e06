"""The bands of degeneracy: real kinds of text inside, their planted opposites outside."""

import base64
import json
import math
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.shard_files import edit_manifest, encode, manifest_value

from apr.shards.degeneracy import Measured, describe_outside, judge_documents, judge_statistics
from apr.shards.manifest import Manifest
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe

STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
CHARACTERS = [chr(0x4E00 + number) for number in range(800)]


def code() -> list[str]:
    names = ("ast", "bisect", "calendar", "contextlib", "csv", "glob", "heapq", "shlex")
    return [(STANDARD_LIBRARY / f"{name}.py").read_text(encoding="utf-8") for name in names]


def cjk(count: int) -> str:
    """Characters by a law of frequency such as Chinese has."""
    weights = [1 / (rank + 1) for rank in range(len(CHARACTERS))]
    return "".join(random.Random(count).choices(CHARACTERS, weights, k=count))


def cjk_comments() -> list[str]:
    lines = [line for text in code()[:4] for line in text.splitlines()]
    return ["\n".join(f"{line}  # {cjk(4 + at % 9)}" for at, line in enumerate(lines))]


def table() -> list[str]:
    chance = random.Random(2)
    rows = (",".join(f"{chance.uniform(-999, 999):.3f}" for _ in range(8)) for _ in range(900))
    return ["x,y,z\n" + "\n".join(rows)]


def digits() -> list[str]:
    chance = random.Random(3)
    return ["\n".join(" ".join(str(chance.randrange(10)) for _ in range(30)) for _ in range(400))]


def minified() -> list[str]:
    """Statements of a script without a space too many, names of one or two letters."""
    chance = random.Random(4)
    names = [*"abcdefghijklmnopqrst", *(f"{a}{b}" for a in "eno" for b in "abcdefgh")]
    forms = (
        "function {0}({1}){{return {2}&&{1}.length>{3}?{2}({1},{3}):null}}",
        'if({0}.{1}==="{2}"){{{0}.{1}={3};throw new Error("{2}")}}',
        "var {0}={1}[{3}],{2}={0}.prototype;",
        "for(let {0}=0;{0}<{1}.{2};{0}++){1}[{0}]^={3};",
    )
    texts = (
        chance.choice(forms).format(*chance.choices(names, k=3), chance.randrange(300))
        for _ in range(1500)
    )
    return ["".join(texts)]


def hashes() -> list[str]:
    chance = random.Random(5)
    return ["\n".join(f"{chance.getrandbits(160):040x}  file{at}" for at in range(800))]


def records() -> list[str]:
    chance = random.Random(6)
    rows = [{"id": at, "name": chance.choice(CHARACTERS), "on": at % 3 == 0} for at in range(900)]
    return [json.dumps(rows, indent=2)]


HARMLESS = {
    "code": code,
    "CJK prose": lambda: [cjk(20_000)],
    "CJK comments": cjk_comments,
    "a table of numbers": table,
    "single digits": digits,
    "a minified script": minified,
    "a list of hashes": hashes,
    "JSON records": records,
    "files and as many copies": lambda: code() + code()[:4] * 3,
    "rulers": lambda: [*code()[:2], "# " + "=" * 400 + "\n", "-" * 300],
    "one small file": lambda: ["import os\nprint(os.getcwd())\n"],
    "one line": lambda: ["x = 1\n"],
}


def base64_blob() -> list[str]:
    return [base64.encodebytes(random.Random(7).randbytes(60_000)).decode()]


DEGENERATE: dict[str, tuple[Callable[[], list[str]], str]] = {
    "zero bytes": (lambda: ["\0" * 40_000], "unigram_entropy_bits"),
    "one letter": (lambda: ["a" * 40_000], "longest_run"),
    "one line, repeated in a file": (lambda: ["def f(x): return x\n" * 3000], "compression_ratio"),
    "one line, repeated as rows": (lambda: ["def f(x): return x\n"] * 3000, "compression_ratio"),
    "one file, repeated": (lambda: code()[:1] * 20, "share_in_distinct_documents"),
    "a few files, repeated": (lambda: code()[1:4] * 15, "share_in_distinct_documents"),
    "zeros between code": (lambda: [*code()[:2], "\0" * 200_000], "unigram_entropy_bits"),
    "base64": (base64_blob, "compression_ratio"),
    "random bytes": (
        lambda: [random.Random(8).randbytes(40_000).decode("latin-1")],
        "compression_ratio",
    ),
}


@pytest.fixture(scope="module", params=[260, 2048])
def used(request: pytest.FixtureRequest) -> Tokenizer:
    return train_bpe(iter([*code(), *cjk_comments(), *minified()]), vocab_size=request.param)


def measure(directory: Path, texts: list[str], used: Tokenizer) -> list[Measured]:
    output, manifest = encode(directory, texts, with_tokenizer=used, shard_tokens=1 << 20)
    return judge_statistics(manifest) + judge_documents(ShardReader.open(output), used)


def outside(values: list[Measured]) -> list[str]:
    return [value.name for value in values if not value.is_inside]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_people_train_on_is_inside_every_band(
    tmp_path: Path, used: Tokenizer, name: str
) -> None:
    values = measure(tmp_path, HARMLESS[name](), used)
    assert outside(values) == [], list(map(str, values))


@pytest.mark.parametrize("name", DEGENERATE)
def test_what_is_no_text_is_outside_of_one(tmp_path: Path, used: Tokenizer, name: str) -> None:
    texts, value = DEGENERATE[name]
    values = measure(tmp_path, texts(), used)
    assert value in outside(values), list(map(str, values))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return encode(tmp_path_factory.mktemp("code"), code())[1]


@pytest.mark.parametrize(
    ("name", "inside", "outside_of"),
    [
        ("bytes_per_token", (0.9, 12.0), (0.5, 0.899, 12.1, float("nan"))),
        ("unigram_entropy_bits", (2.0, 6.4), (0.001, 1.99, 7.0)),
        ("unk_rate", (0.0, 0.01), (0.9999, 0.0101)),
        ("longest_run", (1, 600), (0, 100_000)),
    ],
)
def test_every_band_has_two_sides(
    manifest: Manifest, name: str, inside: tuple[float, ...], outside_of: tuple[float, ...]
) -> None:
    def judged(value: float) -> Measured:
        statistics = {"bytes_per_token": 1.0, name: value}
        changed = manifest.statistics.model_copy(update=statistics)
        values = judge_statistics(manifest.model_copy(update={"statistics": changed}))
        return next(each for each in values if each.name == name)

    assert all(judged(value).is_inside for value in inside)
    assert not any(judged(value).is_inside for value in outside_of)


def test_a_corpus_of_unknown_tokens_is_told_in_words(tmp_path: Path) -> None:
    """The figures of a real one: 99.99 % unknown, 0.001 bits."""
    output, before = encode(tmp_path, code())
    assert describe_outside(before) == []
    statistics = manifest_value(output)["statistics"]
    statistics |= {"unk_rate": 0.9999, "unigram_entropy_bits": 0.001}
    edit_manifest(output, statistics=statistics)
    told = describe_outside(ShardReader.open(output).manifest)
    assert [sentence.split(",")[0] for sentence in told] == [
        "unigram_entropy_bits 0.001",
        "unk_rate 0.9999",
    ]
    assert "unk_rate from 0 to 0.01" in told[1]


def test_a_few_tokens_are_asked_for_less_entropy(manifest: Manifest) -> None:
    def low(num_tokens: int) -> float:
        few = {"total_tokens": num_tokens, "eos_token_count": 0}
        return judge_statistics(manifest.model_copy(update=few))[1].low

    assert low(1) == 0.0
    assert 0.0 < low(4) <= 0.4 * math.log2(4)
    assert low(1000) == 2.0
