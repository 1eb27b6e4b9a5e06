"""The rotary embedding that a config.json asks for, in the two spellings it has had.

Up to transformers 4 `rope_theta` stood beside `rope_scaling`; since 5 both are one object,
`rope_parameters`. A file may hold both, and then they must agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import float_info
from typing import Any, NoReturn, cast

from apr.architecture import RopeScaling
from apr.errors import Refusal

_FACTORS = ("factor", "low_freq_factor", "high_freq_factor")
_LONGEST = "original_max_position_embeddings"
_LARGEST_THETA = 1e15


@dataclass(frozen=True)
class Rope:
    """The base of the frequencies, where the file names one, and how they are stretched."""

    theta: float | None
    scaling: RopeScaling | None


def read_rope(raw: Mapping[str, Any], *, where: Path) -> Rope:
    """What the rotary keys say together.

    Refuses: import.config-value, import.config-unsupported, import.config-disagrees,
    import.config-unknown-key, architecture.shape.
    """
    top = _theta(raw.get("rope_theta"), "rope_theta", where)
    old = _object(raw, "rope_scaling", where)
    new = _object(raw, "rope_parameters", where)
    thetas = {
        "rope_theta": top,
        "rope_scaling": _theta((old or {}).get("rope_theta"), "rope_scaling.rope_theta", where),
        "rope_parameters": _theta(
            (new or {}).get("rope_theta"), "rope_parameters.rope_theta", where
        ),
    }
    stated = {key: theta for key, theta in thetas.items() if theta is not None}
    if len(set(stated.values())) > 1:
        _refuse_disagreement(where, f"theta {stated}")
    scalings = [
        _scaling(value, key, where)
        for key, value in (("rope_scaling", old), ("rope_parameters", new))
        if value is not None
    ]
    if len(scalings) == 2 and scalings[0] != scalings[1]:
        _refuse_disagreement(where, "rope_scaling and rope_parameters that differ")
    return Rope(next(iter(stated.values()), None), scalings[0] if scalings else None)


def _theta(value: Any, key: str, where: Path) -> float | None:
    if value is None:
        return None
    # Compared, not converted: an integer may be larger than any float.
    if type(value) not in (int, float) or not 1 < value <= _LARGEST_THETA:
        refuse_value(where, key, value, "a number above 1")
    return float(value)


def _object(raw: Mapping[str, Any], key: str, where: Path) -> dict[str, Any] | None:
    value = raw.get(key)
    if value is None or isinstance(value, dict):
        return cast(dict[str, Any] | None, value)
    refuse_value(where, key, value, "an object or null")


def _scaling(value: dict[str, Any], key: str, where: Path) -> RopeScaling | None:
    kinds = {value[name] for name in ("rope_type", "type") if isinstance(value.get(name), str)}
    if not kinds and set(value) <= {"rope_theta"}:
        return None
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind not in ("default", "llama3"):
        raise Refusal(
            "import.config-unsupported",
            f"{where}, key {key!r}",
            found=f"rotary embeddings of the type {kind or value!r:.80}",
            expected="null, or the type 'default' or 'llama3'",
            fix="such a model cannot be computed here; choose one without it",
        )
    rest = {name: each for name, each in value.items() if each is not None}
    for name in ("rope_type", "type", "rope_theta"):
        rest.pop(name, None)
    if rest.get("partial_rotary_factor") == 1:
        rest.pop("partial_rotary_factor")
    names = (*_FACTORS, _LONGEST) if kind == "llama3" else ()
    if unknown := sorted(set(rest) - set(names)):
        raise Refusal(
            "import.config-unknown-key",
            f"{where}, key '{key}.{unknown[0]:.60}'",
            found=f"{rest[unknown[0]]!r:.80}",
            expected=f"only the keys of the type {kind!r}: {', '.join(names) or 'none'}",
            fix="the model may compute something else; if the key changes nothing, remove it",
        )
    if kind == "default":
        return None
    return _llama3(rest, key, where)


def _llama3(rest: dict[str, Any], key: str, where: Path) -> RopeScaling:
    for name in _FACTORS:
        number = rest.get(name)
        if type(number) not in (int, float) or not abs(cast(float, number)) <= float_info.max:
            refuse_value(where, f"{key}.{name}", number, "a finite number")
    if type(rest.get(_LONGEST)) is not int:
        refuse_value(where, f"{key}.{_LONGEST}", rest.get(_LONGEST), "an integer")
    return RopeScaling(
        factor=float(rest["factor"]),
        low_freq_factor=float(rest["low_freq_factor"]),
        high_freq_factor=float(rest["high_freq_factor"]),
        original_max_position_embeddings=rest[_LONGEST],
    )


def _refuse_disagreement(where: Path, found: str) -> NoReturn:
    raise Refusal(
        "import.config-disagrees",
        where,
        found=found,
        expected="one value, however often it is spelled",
        fix="get the config.json that was saved with the weights",
    )


def refuse_value(where: Path, key: str, value: object, expected: str) -> NoReturn:
    """Refuse a key of config.json for its value: import.config-value."""
    raise Refusal(
        "import.config-value",
        f"{where}, key {key!r}",
        found=f"{value!r:.80}",
        expected=expected,
        fix="get the config.json that was saved with the weights",
    )
