"""config.json of a Hugging Face directory, read alone and read strictly.

Nothing about a model is guessed. A key that is missing is refused, unless leaving it out is how
Hugging Face itself spells a value; then a note says so. A key that changes the mathematics is
refused unless it stands at the value that changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

from apr.architecture import HF_CLASSES, Architecture
from apr.convert.huggingface import keys
from apr.convert.huggingface.families import kind_of
from apr.convert.huggingface.rope import Rope, read_rope, refuse_value
from apr.errors import DamagedFile, Refusal
from apr.files import read_json

SIZE_LIMIT_BYTES = 4 << 20

# A number of layers becomes a list of names: it is bounded before anything is made of it.
_LARGEST = {
    "vocab_size": 1 << 26,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "max_position_embeddings": 1 << 32,
}
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
)
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# What the classes of Mistral, Qwen2 and Qwen3 take where the key is left out.
_CLASS_WINDOW = 4096


@dataclass(frozen=True)
class HfConfig:
    """What a config.json says."""

    architecture: Architecture
    rest: Mapping[str, Any]
    """Keys beside the architecture that change nothing computed: token ids, initial deviation."""
    notes: tuple[str, ...]
    is_tie_stated: bool
    """Whether `tie_word_embeddings` is in the file, and not the default of Hugging Face's class."""


@dataclass
class _Reading:
    """A config.json while it is read: the object, and what is to be said of it afterwards."""

    raw: Mapping[str, Any]
    where: Path
    family: str
    notes: list[str] = field(default_factory=list[str])

    def get(self, key: str) -> Any:
        """The value of a key; null is how Hugging Face spells absence."""
        return self.raw.get(key)

    def integer(self, key: str) -> int:
        value = self.get(key)
        if type(value) is not int or not 0 < value <= _LARGEST[key]:
            refuse_value(self.where, key, value, f"an integer from 1 to {_LARGEST[key]}")
        return value

    def number(self, key: str, *, above: float, below: float) -> float:
        value = self.get(key)
        # Compared, not converted: an integer may be larger than any float.
        if type(value) not in (int, float) or not above < value < below:
            refuse_value(self.where, key, value, f"a number above {above:g} and below {below:g}")
        return float(value)

    def flag(self, key: str) -> bool | None:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            refuse_value(self.where, key, value, "true or false")
        return value


def read_config_object(path: Path) -> dict[str, Any]:
    """The object in a config.json.

    Refuses: files.not-found, files.io-failed, import.config-damaged.
    """
    what = "a config.json that is one strict JSON object"
    value = read_json(path, limit_bytes=SIZE_LIMIT_BYTES, id="import.config-damaged", what=what)
    if isinstance(value, dict):
        return cast(dict[str, Any], value)
    raise DamagedFile(
        "import.config-damaged",
        path,
        found=type(value).__name__,
        expected=what,
        fix="restore the file from its source",
    )


def read_hf_config(raw: Mapping[str, Any], *, where: Path) -> HfConfig:
    """The architecture that the object of a config.json describes, and what else it says.

    Refuses: import.config-missing, import.family, import.architecture-class,
    import.config-value, import.config-unsupported, import.config-unknown-key,
    import.config-disagrees, architecture.shape.
    """
    reading = _Reading(raw, where, _family(raw, where))
    _require_keys(reading)
    _require_mathematics(reading)
    rope = read_rope(raw, where=where)
    num_heads = reading.integer("num_attention_heads")
    architecture = Architecture(
        model_type=reading.family,  # pyright: ignore[reportArgumentType]  one of HF_CLASSES
        vocab_size=reading.integer("vocab_size"),
        hidden_size=reading.integer("hidden_size"),
        intermediate_size=reading.integer("intermediate_size"),
        num_hidden_layers=reading.integer("num_hidden_layers"),
        num_attention_heads=num_heads,
        num_key_value_heads=_num_key_value_heads(reading, num_heads),
        head_dim=_head_dim(reading, num_heads),
        max_position_embeddings=reading.integer("max_position_embeddings"),
        rope_theta=_rope_theta(reading, rope),
        rms_norm_eps=reading.number("rms_norm_eps", above=0, below=1),
        tie_word_embeddings=_is_tied(reading),
        rope_scaling=rope.scaling,
    )
    _require_no_window(reading, architecture)
    rest = _rest(reading, architecture)
    is_tie_stated = reading.get("tie_word_embeddings") is not None
    return HfConfig(architecture, rest, tuple(reading.notes), is_tie_stated)


def _family(raw: Mapping[str, Any], where: Path) -> str:
    model_type, kind = raw.get("model_type"), kind_of(raw)
    named = raw.get("architectures") or raw.get("_class_name") or "no class named"
    classes = ", ".join(map(str, cast(list[Any], named))) if isinstance(named, list) else str(named)
    if kind is None and not isinstance(model_type, str):
        _refuse_missing(where, ["model_type"])
    if kind is not None or model_type not in HF_CLASSES:
        raise Refusal(
            "import.family",
            where,
            found=f"{model_type!s:.60} ({classes:.120})" + (f", {kind}" if kind else ""),
            expected="a dense decoder-only model of the family " + ", ".join(HF_CLASSES),
            fix="name the directory of such a model"
            + ("; join the adapter with its base model first" if kind == "an adapter" else ""),
            upstream_id="FALSIFY-APR-PRETRAIN-ARCH-007" if kind else None,
        )
    family = cast(str, model_type)
    if raw.get("architectures") is None:
        _refuse_missing(where, ["architectures"])
    if raw["architectures"] != [HF_CLASSES[family]]:
        is_bare = classes == HF_CLASSES[family].replace("ForCausalLM", "Model")
        raise Refusal(
            "import.architecture-class",
            where,
            found=f"architectures {classes:.120}" + (", a model without its head" * is_bare),
            expected=f"[{HF_CLASSES[family]!r}], the language model of model_type {family!r}",
            fix="save the model as " + HF_CLASSES[family],
        )
    return family


def _require_keys(reading: _Reading) -> None:
    required = list(_REQUIRED)
    # Where Llama's class has a default, files from before the key was invented leave it out.
    if reading.family != "llama":
        required += ["num_key_value_heads"]
        if reading.get("rope_parameters") is None:
            required += ["rope_theta"]
    if reading.family == "qwen3":
        required += ["head_dim"]
    if missing := [key for key in required if reading.get(key) is None]:
        _refuse_missing(reading.where, missing)


def _require_mathematics(reading: _Reading) -> None:
    if reading.get("hidden_act") not in ("silu", "swish"):
        _refuse_unsupported(reading.where, "hidden_act", reading.get("hidden_act"), "'silu'")
    for key, value in reading.raw.items():
        if key in keys.NEUTRAL and not keys.is_neutral(key, value):
            neutral = [repr(each) for each in keys.NEUTRAL[key]]
            _refuse_unsupported(reading.where, key, value, " or ".join(["null", *neutral]))
        if key not in keys.NEUTRAL and key not in keys.READ:
            _require_no_smell(reading, key, value)
    # Qwen2's biases are a matter of its class; the key only repeats that they are there.
    wanted = reading.family == "qwen2"
    if reading.flag("attention_bias") not in (None, wanted):
        expected = f"{str(wanted).lower()}, as in every {reading.family}"
        _refuse_unsupported(reading.where, "attention_bias", not wanted, expected)


def _require_no_smell(reading: _Reading, key: str, value: Any) -> None:
    if keys.smells_of_mathematics(key, value):
        raise Refusal(
            "import.config-unknown-key",
            f"{reading.where}, key {key!r:.60}",
            found=f"{value!r:.80}",
            expected="only keys whose effect on the model is known here",
            fix="the model may compute something else; if the key changes nothing, remove it",
        )


def _num_key_value_heads(reading: _Reading, num_heads: int) -> int:
    if reading.get("num_key_value_heads") is not None:
        return reading.integer("num_key_value_heads")
    reading.notes.append(
        "config.json has no num_key_value_heads: num_attention_heads, the default of Llama's class"
    )
    return num_heads


def _head_dim(reading: _Reading, num_heads: int) -> int:
    if reading.get("head_dim") is not None:
        return reading.integer("head_dim")
    # Not a guess: the key is left out exactly when it is this quotient, and the shapes of the
    # projections prove it.
    hidden_size = reading.integer("hidden_size")
    if hidden_size % num_heads:
        refuse_value(
            reading.where,
            "head_dim",
            None,
            f"a head_dim, as {num_heads} heads do not divide a hidden_size of {hidden_size}",
        )
    return hidden_size // num_heads


def _rope_theta(reading: _Reading, rope: Rope) -> float:
    if rope.theta is not None:
        return rope.theta
    if reading.family != "llama":
        _refuse_missing(reading.where, ["rope_theta"])
    reading.notes.append("config.json has no rope_theta: 10000, the default of Llama's class")
    return 10_000.0


def _is_tied(reading: _Reading) -> bool:
    stated = reading.flag("tie_word_embeddings")
    if stated is None:
        reading.notes.append(
            "config.json has no tie_word_embeddings: untied, the default of Hugging Face's class"
        )
    return bool(stated)


def _require_no_window(reading: _Reading, architecture: Architecture) -> None:
    layer_types = reading.get("layer_types")
    if layer_types is not None:
        num_layers = architecture.num_hidden_layers
        if layer_types != ["full_attention"] * num_layers:
            expected = f"null, or {num_layers} times 'full_attention'"
            _refuse_unsupported(reading.where, "layer_types", layer_types, expected)
    if reading.family in ("qwen2", "qwen3") and not reading.flag("use_sliding_window"):
        return
    is_stated = reading.family == "llama" or "sliding_window" in reading.raw
    window = reading.get("sliding_window") if is_stated else _CLASS_WINDOW
    if window is None:
        return
    longest = architecture.max_position_embeddings
    if type(window) is not int or window < longest:
        said = "" if is_stated else ", the default of Hugging Face's class"
        raise Refusal(
            "import.config-unsupported",
            f"{reading.where}, key 'sliding_window'",
            found=f"a window of {window!r:.40} of {longest} positions{said}",
            expected="null, or a window that no sequence exceeds: every token sees every earlier",
            fix="the attention of such a model cannot be computed here",
        )
    reading.notes.append(f"sliding_window {window} never acts on at most {longest} positions")


def _rest(reading: _Reading, architecture: Architecture) -> dict[str, Any]:
    judged = keys.READ | set(keys.NEUTRAL)
    rest = {key: value for key, value in reading.raw.items() if key not in judged}
    for key in _TOKEN_IDS:
        if rest.get(key) == -1:
            # How the first Llama files spelled that there is none.
            del rest[key]
            reading.notes.append(f"{key} -1 was read as none")
        elif not _are_ids(rest.get(key), architecture.vocab_size):
            expected = f"ids below the vocab_size of {architecture.vocab_size}, or null"
            refuse_value(reading.where, key, rest[key], expected)
    if rest.get("auto_map"):
        reading.notes.append(
            "auto_map names code of the model's own: none was run, the model is taken as "
            + architecture.hf_architecture
        )
    return rest


def _are_ids(value: Any, vocab_size: int) -> bool:
    if value is None:
        return True
    ids = cast(list[Any], value) if isinstance(value, list) else [value]
    return bool(ids) and all(type(id) is int and 0 <= id < vocab_size for id in ids)


def _refuse_missing(where: Path, keys: list[str]) -> NoReturn:
    raise Refusal(
        "import.config-missing",
        where,
        found="no " + ", ".join(keys),
        expected="every key that the model depends on; none has a default here",
        fix="get the config.json that was saved with the weights",
    )


def _refuse_unsupported(where: Path, key: str, value: object, expected: str) -> NoReturn:
    raise Refusal(
        "import.config-unsupported",
        f"{where}, key {key!r}",
        found=f"{value!r:.80}",
        expected=expected,
        fix="such a model cannot be computed here; choose one without it",
    )
