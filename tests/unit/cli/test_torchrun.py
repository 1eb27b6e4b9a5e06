"""Which environments mean several ranks, and which are refused instead of being passed over."""

import pytest

from apr.cli.torchrun import numbers_of_environment
from apr.errors import UsageRefusal

OF_TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}


def test_what_torchrun_sets_is_read() -> None:
    assert numbers_of_environment(OF_TORCHRUN) == [1, 4, 1, 2]


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "8"}, {"RANK": "0", "WORLD_SIZE": "1"}, OF_TORCHRUN | dict.fromkeys(
        ("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "1"
    ) | dict.fromkeys(("RANK", "LOCAL_RANK"), "0")],
)  # fmt: skip
def test_a_process_that_is_alone_is_no_rank(environment: dict[str, str]) -> None:
    assert numbers_of_environment(environment) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"RANK": "4"},
        {"LOCAL_WORLD_SIZE": "5"},
        {"WORLD_SIZE": "many"},
        {"LOCAL_RANK": "-1"},
    ],
)
def test_numbers_that_contradict_each_other_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(UsageRefusal) as refused:
        numbers_of_environment(OF_TORCHRUN | changed)
    assert refused.value.id == "ranks.environment"


def test_ranks_of_another_launcher_do_not_train_alone() -> None:
    with pytest.raises(UsageRefusal) as refused:
        numbers_of_environment({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"})
    assert refused.value.id == "ranks.environment"
