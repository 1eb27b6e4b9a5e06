"""A run under a wall clock that somebody sets, again and again."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import apr.train.run_record
from apr.cli.main import run
from apr.train.ranks import Ranks


def run_under_a_jumping_clock(_: Ranks, *, arguments: list[str]) -> int:
    """The exit code of an `apr` command that sees the clock set an hour back, two forward, ..."""
    looks = 0

    def offset_s() -> int:
        nonlocal looks
        looks += 1
        return looks * (3600 if looks % 2 else -3600)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
            return datetime.now(tz or UTC) + timedelta(seconds=offset_s())

    real_time = time.time
    time.time = lambda: real_time() + offset_s()
    apr.train.run_record.datetime = Jumping  # pyright: ignore[reportPrivateImportUsage]
    return run(arguments)
