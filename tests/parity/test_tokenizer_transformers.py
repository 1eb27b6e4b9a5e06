"""A tokenizer directory that apr wrote, opened by transformers."""

from pathlib import Path

from transformers import AutoTokenizer

from apr.tokenizer.train import train_bpe

TEXTS = ["def f(x):\n    return x\n" * 3, "été 世界 e\u0301 123456\t\r\n", ""]


def test_transformers_reads_what_apr_writes(tmp_path: Path) -> None:
    learned = train_bpe(TEXTS * 3, vocab_size=280)
    learned.save(tmp_path / "tok")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert len(theirs) == learned.vocab_size
    assert theirs.eos_token_id == learned.eos_token_id
    for text in TEXTS:
        ids = learned.encode(text).tolist()
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == learned.decode(ids)
