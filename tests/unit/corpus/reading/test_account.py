"""Every row has one fate, and the account says which."""

import json

import pytest

from apr.corpus.reading.account import Account, LeftOut
from apr.errors import DamagedFile, Refusal


def filled(source: str = "a.jsonl") -> Account:
    account = Account()
    account.num_rows, account.num_documents, account.num_byte_order_marks = 5, 2, 1
    account.drop("empty", source, 3)
    account.quarantine("not_utf8", source, 4, offset=77, found="x" * 1000)
    account.drop("blank_line", source, 5)
    return account


def test_fates_are_counted_and_placed() -> None:
    account = filled()
    account.require_balanced()
    assert account.drops == {"empty": 1, "blank_line": 1}
    assert account.examples == {"empty": ["a.jsonl:3"], "blank_line": ["a.jsonl:5"]}
    assert account.quarantined == {"not_utf8": 1}
    (entry,) = account.entries
    assert entry == {
        "reason": "not_utf8",
        "source": "a.jsonl",
        "row": 4,
        "offset": 77,
        "found": "x" * 300,
    }
    assert account.describe() == "1 blank_line, 1 empty, 1 quarantined"


@pytest.mark.parametrize("fault", [-1, 1])
def test_a_row_without_a_fate_or_with_two_is_refused(fault: int) -> None:
    account = filled()
    account.num_rows += fault
    with pytest.raises(Refusal) as refused:
        account.require_balanced()
    assert refused.value.id == "corpus.rows-lost"


def test_more_quarantined_rows_than_allowed_are_refused() -> None:
    account = filled()
    account.require_quarantined_at_most(1)
    with pytest.raises(DamagedFile) as refused:
        account.require_quarantined_at_most(0)
    assert refused.value.id == "corpus.quarantined"
    assert refused.value.where == "a.jsonl:4"
    assert "1 of 5 rows" in refused.value.found
    assert "--max-quarantined 1" in refused.value.fix
    Account().require_quarantined_at_most(0)


def test_parts_add_up_and_survive_json() -> None:
    total = Account()
    for source in ("a", "b"):
        total.merge(Account.from_dict(json.loads(json.dumps(filled(source).as_dict()))))
    total.require_balanced()
    assert (total.num_rows, total.num_documents, total.num_byte_order_marks) == (10, 4, 2)
    assert total.drops == {"empty": 2, "blank_line": 2}
    assert total.quarantined == {"not_utf8": 2}
    assert total.examples["empty"] == ["a:3", "b:3"]
    assert [entry["source"] for entry in total.entries] == ["a", "b"]
    assert filled().as_dict() == filled().as_dict() != total.as_dict()


def test_only_the_first_are_kept_and_all_are_counted() -> None:
    account, parts = Account(), Account()
    for number in range(1500):
        account.num_rows += 2
        account.drop("empty", "a", number)
        account.quarantine("not_utf8", "a", number, offset=None, found="x")
    for _ in range(2):
        parts.merge(account)
    for each, times in ((account, 1), (parts, 2)):
        each.require_balanced()
        assert each.num_quarantined == 1500 * times
        assert [entry["row"] for entry in each.entries] == list(range(1000))
        assert each.examples == {"empty": [f"a:{number}" for number in range(5)]}


def test_what_is_left_out_is_told_in_order() -> None:
    told: list[LeftOut] = []
    account = Account(record=told.append)
    account.leave_out("symlink", "link")
    account.num_rows += 2
    account.num_documents += 1
    account.quarantine("not_utf8", "a", 1, offset=0, found="x")
    account.withdraw("duplicate", "a", 2)
    account.require_balanced()
    assert [(each.source, each.row, each.reason, each.is_quarantined) for each in told] == [
        ("link", None, "symlink", False),
        ("a", 1, "not_utf8", True),
        ("a", 2, "duplicate", False),
    ]
