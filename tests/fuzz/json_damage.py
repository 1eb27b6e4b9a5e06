"""Damage to JSON that mostly leaves JSON: other types and numbers, keys gone, twice or renamed.

The result is text, not a value, because Python's values cannot hold a key twice or NaN.
"""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

_VALUES = (
    "null", "true", "false", "[]", "{}", '""', "[null]", '{"":0}', "[[]]", '[0,"a"]', '"1"',
    "0", "-0", "-1", "1", "2", "3", "64", "0.5", "-0.0", "1.0", "1e-320", "1e30", "4e38", "1e308",
    *(
        str((1 << bits) + off)
        for bits in (7, 8, 16, 31, 32, 40, 53, 62, 63, 64, 70)
        for off in (-1, 0)
    ),
    "1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 400 + ".0", "0." + "0" * 400 + "1", "1e-999",
    '"\\u0000"', '"\\ud83d\\ude00"', '"\\u2581"', '"a"', '"' + "a" * 2000 + '"', '"nan"',
    '"%s{0!r}\\n"', '"../../x"', "[" * 120 + "]" * 120, '{"a":' * 120 + "0" + "}" * 120,
    "[" + "0," * 3000 + "0]",
)  # fmt: skip
"""JSON, if unusual."""
_NO_VALUES = (
    "NaN", "Infinity", "1e999", "-1e999", '"\\ud800"', '"\\udfff\\ud800"', '"\x01"', "'a'", "[1,]",
    "{", "]", "", '{"a":1,}', '{"a":1,"a":1}', "9" * 5000, "01", "+1", ".5", "1.",
    "[" * 130 + "]" * 130, "[" * 5000 + "]" * 5000, "[" * 60_000, '{"a":' * 5000,
    '{"a":' * 130 + "0" + "}" * 130,
)  # fmt: skip
"""What a strict reader refuses."""


def texts_and_keys(values: Sequence[Any]) -> tuple[str, ...]:
    """Every key and short text in some values, as material."""
    found: dict[str, None] = {}

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            found.update(dict.fromkeys(value))
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value[:20]:
                collect(each)
        elif isinstance(value, str) and len(value) < 60:
            found[value] = None

    for value in values:
        collect(value)
    return tuple(found)


def damaged(random: Random, value: Any, words: Sequence[str]) -> str:
    """The text of a value with something wrong somewhere in it."""
    if random.random() < 0.85:
        if isinstance(value, dict) and value:
            return _object(random, value, words)
        if isinstance(value, list) and value:
            return _array(random, value, words)
    return _replaced(random, value, words)


def spelled(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _object(random: Random, value: dict[str, Any], words: Sequence[str]) -> str:
    pairs = [f"{spelled(key)}:{spelled(each)}" for key, each in value.items()]
    keys = list(value)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.randrange(len(keys))
        key, kind = keys[at], random.randrange(24)
        if kind <= 14:
            pairs[at] = f"{spelled(key)}:{damaged(random, value[key], words)}"
        elif kind <= 16:
            pairs[at] = ""
        elif kind <= 18:
            pairs[at] = f"{spelled(random.choice(words))}:{spelled(value[key])}"
        elif kind <= 20:
            pairs[at] = f"{spelled(key)}:{spelled(value[random.choice(keys)])}"
        elif kind <= 22:
            pairs.append(f"{spelled(random.choice(words))}:{_odd(random)}")
        else:
            pairs.append(f"{spelled(key)}:{damaged(random, value[key], words)}")
    return "{" + ",".join(filter(None, pairs)) + "}"


def _array(random: Random, value: list[Any], words: Sequence[str]) -> str:
    items = [spelled(each) for each in value]
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(value))
        kind = random.randrange(6)
        if kind <= 2:
            items[at] = damaged(random, value[at], words)
        elif kind == 3:
            del items[at:]
            break
        elif kind == 4:
            items.append(items[at % len(items)])
        else:
            items[at] = _odd(random)
    return "[" + ",".join(items) + "]"


def _replaced(random: Random, value: Any, words: Sequence[str]) -> str:
    kind = random.randrange(6)
    if kind == 0 and type(value) is int:
        return str(value + random.choice((-64, -1, 1, 64)))
    if kind == 1 and type(value) in (int, float):
        return repr(value * random.choice((-1, 0.5, 2, 1e30)))
    if kind == 2 and words:
        return spelled(random.choice(words))
    if kind == 3:
        return f"[{spelled(value)}]" if random.random() < 0.5 else f'{{"a":{spelled(value)}}}'
    if kind == 4 and isinstance(value, str):
        return spelled(value[: len(value) // 2] + random.choice(("", " ", "\0", "\u0301", "x")))
    return _odd(random)


def _odd(random: Random) -> str:
    return random.choice(_VALUES if random.random() < 0.85 else _NO_VALUES)
