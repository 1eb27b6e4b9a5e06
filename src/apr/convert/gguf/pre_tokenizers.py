"""How text is cut into words: what GGUF calls by a name and a tokenizer.json writes out.

A closed table. A wrong or absent name makes other readers cut text differently, without an error
and with worse output, so a tokenizer that is not in here is not exported, and a name that is not
in here is not taken for one. The names are llama.cpp's (`llm_tokenizer_bpe`), whose patterns are
those of Hugging Face's files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apr.tokenizer.definition import Definition

_GPT2_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_GPT2_LETTERS}|\p{{N}}|{_REST}"
_LLAMA3 = rf"{_GPT2_LETTERS}|\p{{N}}{{1,3}}|{_REST}"

NFC = {"type": "NFC"}


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}


def _split(pattern: str) -> tuple[dict[str, Any], ...]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    return {**split, "invert": False}, _byte_level(use_regex=False)


@dataclass(frozen=True)
class PreTokenizer:
    """One row of the table."""

    name: str
    """What is written to `tokenizer.ggml.pre`."""
    parts: tuple[dict[str, Any], ...]
    """The pre-tokenizer's components, as Hugging Face names them."""
    normalizer: dict[str, Any] | None
    """What Hugging Face's files of that name do to text first; llama.cpp does nothing."""
    ignore_merges: bool
    """Whether llama.cpp, for that name, takes a word that is a piece whole."""
    adds_bos: bool
    """What llama.cpp does where `add_bos_token` is not stored."""
    other_names: tuple[str, ...] = ()
    """Names that llama.cpp reads as the same."""

    def component(self) -> dict[str, Any]:
        """The pre-tokenizer of a tokenizer.json."""
        parts = [
            {**part, "trim_offsets": False} if part["type"] == "ByteLevel" else part
            for part in self.parts
        ]
        return parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts}


TABLE = (
    PreTokenizer("gpt-2", (_byte_level(use_regex=True),), None, False, False),
    PreTokenizer("qwen2", _split(_QWEN2), NFC, False, False),
    PreTokenizer("llama-bpe", _split(_LLAMA3), None, True, True, ("llama3", "llama-v3")),
    PreTokenizer("smaug-bpe", _split(_LLAMA3), None, False, False),
    PreTokenizer(
        "smollm",
        ({"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)),
        None,
        False,
        False,
    ),
)


def by_name(name: str) -> PreTokenizer | None:
    """The row that `tokenizer.ggml.pre` names, if there is one."""
    return next((row for row in TABLE if name in (row.name, *row.other_names)), None)


def of_definition(definition: Definition) -> PreTokenizer | None:
    """The row that cuts text as this tokenizer does, if there is one."""
    component = definition.pre_tokenizer
    if component is None:
        return None
    is_sequence = component.get("type") == "Sequence"
    listed: Any = component.get("pretokenizers") if is_sequence else [component]
    if not isinstance(listed, list):
        return None
    parts = tuple(_significant(part) for part in listed)  # type: ignore[reportUnknownVariableType]
    for row in TABLE:
        if row.parts == parts and row.ignore_merges == definition.ignore_merges:
            return row
    return None


def _significant(part: Any) -> Any:
    """A component without what decides no ids; files from before `use_regex` mean true."""
    if not isinstance(part, Mapping) or part.get("type") != "ByteLevel":  # type: ignore[reportUnknownMemberType]
        return part  # type: ignore[reportUnknownVariableType]
    fields: dict[str, Any] = {"use_regex": True, **part}
    fields.pop("trim_offsets", None)
    return fields
