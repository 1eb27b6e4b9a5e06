"""Evaluation items in the shapes of HumanEval and MBPP, invented for these tests."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HUMAN_EVAL: list[dict[str, Any]] = [
    {
        "task_id": "Invented/0",
        "prompt": "from typing import List\n\n\n"
        "def widest_gap(levels: List[float], floor: float) -> float:\n"
        '    """Return the largest step between neighbouring levels that lie above the floor,\n'
        "    or zero when fewer than two of them do.\n"
        "    >>> widest_gap([1.0, 4.0, 9.0], 2.0)\n    5.0\n"
        '    """\n',
        "canonical_solution": "    widest = 0.0\n    previous = None\n"
        "    for level in sorted(levels):\n        if level <= floor:\n            continue\n"
        "        if previous is not None and level - previous > widest:\n"
        "            widest = level - previous\n        previous = level\n    return widest\n",
        "test": "METADATA = {'author': 'nobody'}\n\n\ndef check(candidate):\n"
        "    assert candidate([1.0, 4.0, 9.0], 2.0) == 5.0\n    assert candidate([], 0.0) == 0.0\n",
        "entry_point": "widest_gap",
    },
    {
        "task_id": "Invented/1",
        "prompt": "def twice(x):\n",
        "canonical_solution": "    return 2 * x\n",
        "test": "pass\n",
        "entry_point": "twice",
    },
]
MBPP: list[dict[str, Any]] = [
    {
        "task_id": 7001,
        "text": "Write a function to count the ships whose cargo outweighs the harbour's mean.",
        "code": "def heavy_ships(harbour):\r\n    mean = sum(harbour) / len(harbour)\r\n"
        "    heavy = [ship for ship in harbour if ship > mean]\r\n    return len(heavy)",
        "test_setup_code": "",
        "test_list": [
            "assert heavy_ships([3, 9, 4]) == 1",
            "assert heavy_ships([5, 5]) == 0",
            "assert heavy_ships([1, 2, 30, 40]) == 2",
        ],
        "challenge_test_list": [],
    },
    {
        "task_id": 7002,
        "text": "Write a function to add up cargo.",
        "code": "def load(fleet):\n    return sum(boat.cargo * boat.trips for boat in fleet)",
        "test_list": ["assert load([]) == 0"],
    },
]
SOLUTION: str = HUMAN_EVAL[0]["canonical_solution"]


def write_items(path: Path, items: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path
