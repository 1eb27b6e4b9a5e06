"""decode(encode(text)) is the text, for any text, where no normalizer changes it."""

from hypothesis import given
from hypothesis import strategies as st
from tests.tokenizer_files import EOS, tokenizer

from apr.tokenizer.conservation import bytes_per_id
from apr.tokenizer.train import train_bpe

CONTROL = (EOS, "<|im_start|>", "<tool_call>")
LEARNED = train_bpe(
    ["def f(x):\n    return x + 1\n" * 9, "    " * 20, f"{EOS} " * 9, "naïve 世界" * 3],
    vocab_size=330,
    normalization="none",
)
MARKED = tokenizer(control=CONTROL, special=False)
texts = st.text(st.characters(codec="utf-8") | st.sampled_from("\n\t \r<|>ab_ "), max_size=60)
spelled = st.lists(texts | st.sampled_from(CONTROL), max_size=4).map("".join)


@given(text=spelled)
def test_any_text_survives(text: str) -> None:
    for used in (LEARNED, MARKED):
        token_ids = used.encode(text)
        assert used.decode(token_ids) == text
        sizes = bytes_per_id(used.definition)
        assert sizes is not None
        assert sizes[token_ids].sum() == len(text.encode())


@given(text=spelled)
def test_no_text_yields_a_control_id(text: str) -> None:
    for used in (LEARNED, MARKED):
        control = {token.id for token in used.definition.added_tokens}
        assert control
        assert control.isdisjoint(used.encode(text).tolist())
