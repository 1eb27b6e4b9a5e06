from typing import Any

import pytest

from apr.container.named_keys import Metadata
from apr.container.provenance import OWN, PREVIOUS, chained, check_chain, entries_of

TRAINED = {"what": "checkpoint", "step": 7, "val_loss_nats": 1.5}


def metadata(entries: Any) -> Metadata:
    return Metadata().with_free({"apr.provenance": entries})


def chain() -> list[dict[str, Any]]:
    first = chained([TRAINED], {"what": "stamp", "number": 1})
    return [TRAINED, first, chained([TRAINED, first], {"what": "stamp", "number": 2})]


def test_a_chain_holds() -> None:
    entries = chain()
    assert entries[1].keys() == {"what", "number", PREVIOUS, OWN}
    assert entries_of(metadata(entries)) == entries
    found = check_chain(metadata(entries))
    assert (found.verdict, found.found) == ("PASS", "2 of 3 entries are hashed and agree")


def test_the_order_of_keys_is_no_difference() -> None:
    turned = [dict(reversed(entry.items())) for entry in chain()]
    assert check_chain(metadata(turned)).verdict == "PASS"


@pytest.mark.parametrize("entries", [[], [TRAINED], [TRAINED, {"what": "import"}]])
def test_without_a_hash_nothing_is_compared(entries: list[Any]) -> None:
    assert check_chain(metadata(entries)).verdict is None
    assert check_chain(Metadata()).verdict is None


def edited(index: int, **keys: Any) -> list[dict[str, Any]]:
    entries = chain()
    entries[index] = entries[index] | keys
    return entries


@pytest.mark.parametrize(
    "entries",
    [
        edited(0, val_loss_nats=1.4),
        edited(1, number=7),
        edited(2, number=7),
        edited(2, added=None),
        edited(1, **{PREVIOUS: "0" * 64}),
        chain()[1:],
        [chain()[1], chain()[0], chain()[2]],
        [TRAINED, *chain()],
        [chain()[0], chain()[2]],
        [*chain()[:2], {"what": "stamp", PREVIOUS: chain()[2][PREVIOUS]}],
        [*chain(), "text"],
        {"what": "stamp"},
        "text",
    ],
)
def test_each_edit_is_seen(entries: Any) -> None:
    assert check_chain(metadata(entries)).verdict == "FAIL"


def test_what_the_hashes_cannot_show() -> None:
    """The last entry dropped leaves a chain that holds: only the file's own hash shows that."""
    assert check_chain(metadata(chain()[:2])).verdict == "PASS"
    assert check_chain(metadata([*chain(), TRAINED])).verdict == "PASS"
