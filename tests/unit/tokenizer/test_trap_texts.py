"""The texts of the comparison: always the same, and with everything in them that they promise."""

import hashlib

from tests.tokenizer_files import EOS, tokenizer

from apr.tokenizer import trap_texts as traps

SMALL = tokenizer()
TEXTS = list(traps.trap_texts(SMALL.definition))
# Other texts with the same version would make kept verdicts lie: raise VERSION with this.
SHA256_OF_VERSION = {1: "84eab8559b23186d3594605a281b97aa48cf6d002544d55e468b16b0bd9ac0f6"}


def sha256(texts: list[str]) -> str:
    return hashlib.sha256("\x1e".join(texts).encode()).hexdigest()


def test_the_texts_of_a_version_never_change() -> None:
    assert len(TEXTS) == traps.NUM_TEXTS
    every = [*TEXTS, *traps.code_point_texts()]
    assert sha256(every) == SHA256_OF_VERSION[traps.VERSION]


def test_each_piece_that_is_text_is_in_some_text() -> None:
    joined = "".join(TEXTS[:4000])
    for piece in ("hel", " he", "~", "\n", "\0"):
        assert piece in joined


def test_control_strings_are_among_them() -> None:
    with_control = tokenizer(control=(EOS, "<|mine|>"))
    joined = "".join(traps.trap_texts(with_control.definition))
    assert all(text in joined for text in (EOS, "<|mine|>", "<tool_call>"))


def test_every_code_point_that_may_be_assigned_is_in_a_text() -> None:
    texts = list(traps.code_point_texts())
    assert len(texts) == traps.num_code_point_texts()
    held = set().union(*texts)
    assigned_planes = {*range(0x40000), *range(0xE0000, 0xE1000)} - {*range(0xD800, 0xE000)}
    assert set(map(chr, assigned_planes)) <= held
    assert chr(0x10FFC0) in held
    assert {chr(code_point) for code_point in traps.code_points()} <= held
    assert traps.num_code_points() == len(list(traps.code_points()))
