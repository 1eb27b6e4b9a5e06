"""Names for what a next command writes: advice must not be refused because its output is there."""

import os
from itertools import chain, count
from pathlib import Path


def free_name(path: Path) -> Path:
    """`path`, or the first of `path`-2, `path`-3 and so on that nothing has yet."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(each for each in chain([path], numbered) if not os.path.lexists(each))
