"""Tokenizers on their way into a GGUF file: exactly what llama.cpp needs to give the same ids."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import tokenizer_files
from tests.reference_data import reference
from tests.tokenizer_files import ALPHABET, EOS, set_in

from apr.convert.gguf import pre_tokenizers, vocabulary
from apr.convert.gguf.layout import ValueType
from apr.convert.gguf.metadata import Metadata
from apr.convert.gguf.tokenizer import Exported, tokenizer_fields
from apr.convert.gguf.vocabulary import read_vocabulary
from apr.errors import Refusal
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe

QWEN2, LLAMA3 = (pre_tokenizers.by_name(name) for name in ("qwen2", "llama-bpe"))


def exported(tokenizer: Tokenizer, *, rows: int = 0, **config: Any) -> Exported:
    return tokenizer_fields(tokenizer, config, vocab_size=max(rows, tokenizer.vocab_size))


def values(found: Exported) -> dict[str, Any]:
    return {field.key.removeprefix("tokenizer."): field.value for field in found.fields}


def test_a_byte_level_tokenizer_is_written_out(tmp_path: Path) -> None:
    tokenizer = tokenizer_files.tokenizer()
    found = values(exported(tokenizer, rows=263))
    eos = tokenizer.eos_token_id
    assert eos == 259
    assert found["ggml.model"] == "gpt2"
    assert found["ggml.pre"] == "gpt-2"
    assert found["ggml.tokens"][:256] == ALPHABET
    assert found["ggml.tokens"][256:] == [
        "he", "hel", "\u0120he", EOS, "[PAD260]", "[PAD261]", "[PAD262]",
    ]  # fmt: skip
    assert found["ggml.token_type"].tolist() == [1] * 259 + [3] + [5] * 3
    assert found["ggml.merges"] == ["h e", "he l", "\u0120 he"]
    assert found["ggml.eos_token_id"] == eos
    assert found["ggml.add_bos_token"] is False
    assert "ggml.bos_token_id" not in found
    assert "ggml.add_eos_token" not in found
    assert json.loads(found["huggingface.json"]) == json.loads(tokenizer.json_bytes)


def test_a_declared_separator_is_declared_again() -> None:
    control = (EOS, "<|im_end|>")
    declared = tokenizer_files.tokenizer(control=control)
    # What ends a text is another thing, and says nothing of what stands between documents.
    found = exported(declared, eos_token_id=260)
    again = read_back(found, declared.vocab_size).tokenizer
    assert again is not None
    assert (declared.eos_token, again.eos_token) == (EOS, EOS)
    assert values(found)["ggml.eos_token_id"] == 260
    silent = Tokenizer.from_json_bytes(declared.json_bytes, eos_token=None, where="here")
    again = read_back(exported(silent, eos_token_id=259), declared.vocab_size).tokenizer
    assert again is not None
    assert again.eos_token is None


def test_ids_of_special_tokens_come_from_the_configuration_first() -> None:
    tokenizer = tokenizer_files.tokenizer(control=(EOS, "<a>", "<b>", "<c>"))
    config = {"bos_token_id": 260, "eos_token_id": [261, 259, 262], "pad_token_id": 262}
    found = values(exported(tokenizer, **config))
    keys = ("bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "padding_token_id")
    assert [found[f"ggml.{key}"] for key in keys] == [260, 261, 259, 262, 262]
    assert exported(tokenizer, eos_token_id=[259, 260, 261, 262]).notes[-1].startswith("ids [262]")


def test_tokens_that_are_not_special_are_user_defined() -> None:
    tokenizer = tokenizer_files.tokenizer(special=False)
    assert values(exported(tokenizer))["ggml.token_type"].tolist() == [1] * 259 + [4]


def test_tokens_that_llama_cpp_goes_by_the_text_of_are_told() -> None:
    control = (EOS, "<|fim_prefix|>", "<tool_call>")
    found = exported(tokenizer_files.tokenizer(control=control, special=False))
    assert "takes <|fim_prefix|> for control tokens" in found.notes[-1]
    found = exported(tokenizer_files.tokenizer(control=control))
    assert not any("<|fim_prefix|>" in note for note in found.notes)


def split(pattern: str) -> dict[str, Any]:
    row = next(row for row in pre_tokenizers.TABLE if pattern in row.name)
    return row.component()


def digits_then_words(value: dict[str, Any]) -> None:
    digits = {"type": "Digits", "individual_digits": True}
    parts = [digits, value["pre_tokenizer"]]
    value["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}


def llama3(value: dict[str, Any]) -> None:
    value["pre_tokenizer"] = split("llama-bpe")
    value["model"]["ignore_merges"] = True


NAMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "gpt-2": tokenizer_files.nothing,
    "qwen2": set_in("pre_tokenizer", to=split("qwen2")),
    "smaug-bpe": set_in("pre_tokenizer", to=split("llama-bpe")),
    "llama-bpe": llama3,
    "smollm": digits_then_words,
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("normalizer", [None, {"type": "NFC"}])
def test_how_text_is_cut_has_a_name(name: str, normalizer: dict[str, str] | None) -> None:
    def change(value: dict[str, Any]) -> None:
        NAMED[name](value)
        value["normalizer"] = normalizer

    found = exported(tokenizer_files.tokenizer(change))
    assert values(found)["ggml.pre"] == name
    assert any("NFC" in note for note in found.notes) == (normalizer is not None)


def test_every_row_of_the_table_has_a_tokenizer_here() -> None:
    assert {*NAMED} == {row.name for row in pre_tokenizers.TABLE}


def test_the_pattern_that_apr_trains_with_is_qwen2s() -> None:
    texts = ["def f(x):\n    return x + 1\n"] * 3
    for normalization in ("none", "nfc"):
        tokenizer = train_bpe(texts, vocab_size=280, normalization=normalization)
        found = values(exported(tokenizer))
        assert found["ggml.pre"] == "qwen2"
        assert found["ggml.eos_token_id"] == tokenizer.vocab_size - 1


def in_split(key: str, to: object) -> Callable[[dict[str, Any]], object]:
    def change(value: dict[str, Any]) -> None:
        value["pre_tokenizer"] = copy.deepcopy(split("qwen2"))
        value["pre_tokenizer"]["pretokenizers"][0][key] = to

    return change


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": EOS, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {EOS: {"id": EOS, "ids": [259], "tokens": [EOS]}},
}


def template(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    def set_template(value: dict[str, Any]) -> None:
        value["post_processor"] = copy.deepcopy(TEMPLATE)
        change(value["post_processor"])

    return set_template


def no_byte(value: dict[str, Any]) -> None:
    vocab = value["model"]["vocab"]
    vocab["zzz"] = vocab.pop(ALPHABET[7])


REFUSED: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("gguf.pre-tokenizer-unknown", set_in("pre_tokenizer", "add_prefix_space", to=True)),
    ("gguf.pre-tokenizer-unknown", set_in("pre_tokenizer", to=None)),
    ("gguf.pre-tokenizer-unknown", set_in("pre_tokenizer", "use_regex", to=False)),
    ("gguf.pre-tokenizer-unknown", set_in("model", "ignore_merges", to=True)),
    ("gguf.pre-tokenizer-unknown", in_split("behavior", "Removed")),
    ("gguf.pre-tokenizer-unknown", in_split("invert", True)),
    ("gguf.pre-tokenizer-unknown", in_split("pattern", {"Regex": r"\p{N}{1,4}"})),
    ("gguf.normalizer-unknown", set_in("normalizer", to={"type": "NFKC"})),
    ("gguf.normalizer-unknown", set_in("normalizer", to={"type": "Lowercase"})),
    ("gguf.tokenizer-unsupported", set_in("model", "unk_token", to="he")),
    ("gguf.tokenizer-unsupported", no_byte),
    ("gguf.tokenizer-unsupported", lambda value: value["model"]["merges"].append("h e")),
    ("gguf.tokenizer-unsupported", set_in("added_tokens", 0, "lstrip", to=True)),
    ("gguf.tokenizer-unsupported", template(lambda t: t["single"].insert(0, t["single"][0]))),
    ("gguf.tokenizer-unsupported", template(set_in("special_tokens", EOS, "ids", to=[1, 2]))),
    ("gguf.tokenizer-unsupported", template(set_in("special_tokens", EOS, "ids", to=[258]))),
    (
        "gguf.tokenizer-unsupported",
        set_in("post_processor", to={
            "type": "RobertaProcessing", "sep": [EOS, 259], "cls": [EOS, 259],
            "trim_offsets": True, "add_prefix_space": False,
        }),
    ),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_has_no_name_is_refused_and_never_guessed(number: int) -> None:
    id, change = REFUSED[number]
    with pytest.raises(Refusal) as caught:
        exported(tokenizer_files.tokenizer(change))
    assert caught.value.id == id


def test_what_stands_before_a_prompt_is_told() -> None:
    found = values(exported(tokenizer_files.tokenizer(template(tokenizer_files.nothing))))
    assert (found["ggml.add_bos_token"], found["ggml.bos_token_id"]) == (True, 259)
    after = template(lambda t: t["single"].append(t["single"].pop(0)))
    found = values(exported(tokenizer_files.tokenizer(after)))
    assert (found["ggml.add_bos_token"], found["ggml.add_eos_token"]) == (False, True)


def test_a_model_without_a_tokenizer_or_an_end_is_refused() -> None:
    with pytest.raises(Refusal, match=r"gguf\.tokenizer-missing"):
        tokenizer_fields(None, {}, vocab_size=9)
    with pytest.raises(Refusal, match=r"tokenizer\.eos-undeclared"):
        exported(tokenizer_files.tokenizer(eos=None))
    assert exported(tokenizer_files.tokenizer(eos=None), eos_token_id=259)


def test_sizes_ids_and_texts_must_fit() -> None:
    tokenizer = tokenizer_files.tokenizer()
    with pytest.raises(Refusal, match=r"gguf\.vocab-size-differs"):
        tokenizer_fields(tokenizer, {}, vocab_size=tokenizer.vocab_size - 1)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        with pytest.raises(Refusal, match=r"gguf\.special-id"):
            exported(tokenizer, rows=300, **{name: 260})
    padded = tokenizer_files.tokenizer(control=("[PAD260]",), eos=None)
    with pytest.raises(Refusal, match=r"gguf\.token-repeated"):
        exported(padded, rows=261, eos_token_id=259)


def read_back(found: Exported, rows: int, *, without: str = "") -> vocabulary.Vocabulary:
    fields = {field.key: field for field in found.fields if field.key != without}
    return read_vocabulary(Metadata(fields, where="model.gguf"), vocab_size=rows)


@pytest.mark.parametrize("name", NAMED)
def test_the_tokenizer_comes_back_with_its_json_and_nearly_without(name: str) -> None:
    tokenizer = tokenizer_files.tokenizer(NAMED[name])
    found = exported(tokenizer, rows=270)
    whole = read_back(found, 270)
    assert whole.tokenizer
    assert whole.tokenizer.json_bytes == tokenizer.json_bytes
    assert whole.notes == ()
    rebuilt = read_back(found, 270, without=vocabulary.HF_JSON).tokenizer
    assert rebuilt
    text = "hello he 12345 \u00e9\u4e2d\n\n  x'll"
    assert rebuilt.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert rebuilt.vocabulary == tokenizer.vocabulary


@pytest.mark.parametrize(
    ("key", "to"),
    [
        (vocabulary.PRE, "llama-bpe"),
        (vocabulary.MERGES, ["h e", "\u0120 he", "he l"]),
        (vocabulary.TOKENS, [*reversed(ALPHABET), "he", "hel", "\u0120he", EOS]),
    ],
)
def test_a_json_that_says_something_else_is_refused(key: str, to: Any) -> None:
    found = exported(tokenizer_files.tokenizer())
    fields = {field.key: field for field in found.fields}
    kind = ValueType.STRING if isinstance(to, str) else ValueType.ARRAY
    element = None if isinstance(to, str) else ValueType.STRING
    fields[key] = type(fields[key])(key, kind, to, element)
    with pytest.raises(Refusal, match=r"gguf\.tokenizer-disagrees"):
        read_vocabulary(Metadata(fields, where="model.gguf"), vocab_size=260)


@pytest.mark.parametrize("name", ["gpt-2", "qwen2"])
def test_published_tokenizers_are_built_again_with_the_same_ids(
    name: str, shared_data: Path
) -> None:
    folder = {"gpt-2": "gpt2", "qwen2": "qwen2.5"}[name]
    path = reference(shared_data, f"tokenizers/{folder}/tokenizer.json")
    tokenizer = Tokenizer.load(path, eos_token=EOS)
    found = exported(tokenizer, rows=tokenizer.vocab_size + 7)
    assert values(found)["ggml.pre"] == name
    rows = tokenizer.vocab_size + 7
    rebuilt = read_back(found, rows, without=vocabulary.HF_JSON).tokenizer
    assert rebuilt
    if name == "qwen2":
        assert rebuilt.fingerprint == tokenizer.fingerprint
    inp = reference(shared_data, f"ggml-vocab/ggml-vocab-{name}.gguf.inp")
    out = reference(shared_data, f"ggml-vocab/ggml-vocab-{name}.gguf.out")
    texts = inp.read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    ids = [[*map(int, line.split())] for line in out.read_text().split("\n")[:-1]]
    assert len(texts) == len(ids) == 46
    assert [encoded.tolist() for encoded in rebuilt.encode_batch(texts)] == ids
