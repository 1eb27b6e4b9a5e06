"""docs/errors.md names every refusal id that apr can raise, and no other."""

import re
from pathlib import Path

import pytest
from tests.house.refusal_ids import Found, collect, read_source

from apr import errors
from apr.train.gates import UPSTREAM_IDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"

RAISES = """
from apr.errors import DamagedFile, Refusal

class Late(DamagedFile):
    pass

def open_it(path):
    raise Late("planted.fault", path, found=1, expected=2, fix="none", upstream_id="GATE-9")

def read(path, *, limit, id):
    raise DamagedFile(id, path, found=1, expected=2, fix="none")

def read_json(path, refusal_id, limit):
    return read(path, limit=limit, id=refusal_id)

class Gate:
    where: str
    gate_id: str

    def as_refusal(self):
        return Refusal(self.gate_id, self.where, found=1, expected=2, fix="none")

def use(path):
    read_json(path, "planted.passed-on", 3)
    Gate("here", gate_id="planted.gate")
    Refusal("planted.left" if path else "planted.right", path, found=1, expected=2, fix="none")
"""


def sections(document: str) -> dict[str, str]:
    """The text below each `### id` heading."""
    parts = re.split(r"^### (\S+)\n", re.sub(r"^## .*\n", "", document, flags=re.M), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def disagreements(found: dict[str, Found], document: str) -> list[str]:
    """What is documented and not raised, raised and not documented, or told differently."""
    documented = sections(document)
    problems = [f"{id} is not documented: {found[id].places[0]}" for id in {*found} - {*documented}]
    problems += [f"{id} is documented, but nothing raises it" for id in {*documented} - {*found}]
    for id in {*found} & {*documented}:
        first_line, _, body = documented[id].strip().partition("\n")
        codes = " or ".join(map(str, sorted(found[id].exit_codes)))
        upstream = ", ".join(sorted(found[id].upstream_ids))
        wanted = f"Exit {codes}." + (f" Upstream: {upstream}." if upstream else "")
        if first_line != wanted:
            problems.append(f"{id} should begin {wanted!r}, it begins {first_line!r}")
        if not (re.search(r"\*\*When\*\* \S", body) and re.search(r"\*\*Do\*\* \S", body)):
            problems.append(f"{id} does not say **When** and **Do**")
    return sorted(problems)


def refusal_kinds() -> list[type[errors.Refusal]]:
    """Every class that owns an exit code of a refusal."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, errors.Refusal)]


@pytest.fixture(scope="module")
def raised() -> dict[str, Found]:
    found, _ = collect(read_source())
    for id in {*found} & {*UPSTREAM_IDS}:
        found[id].upstream_ids |= {UPSTREAM_IDS[id]} - {None}
    return found


def test_every_id_is_documented_and_none_is_stale(raised: dict[str, Found]) -> None:
    assert len(raised) > 50
    assert disagreements(raised, DOCUMENT.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ["README.md", "docs/errors.md", "docs/commands.md"])
def test_every_exit_code_of_a_refusal_is_in_the_tables(name: str) -> None:
    text = (DOCUMENT.parents[1] / name).read_text(encoding="utf-8")
    table = text.partition("| exit code | meaning |")[2].partition("\n\n")[0]
    listed = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in row.split(",")
    }
    assert 10 in (codes := {kind.exit_code for kind in refusal_kinds()})
    assert codes <= listed


def test_every_id_can_be_found_by_one_search() -> None:
    found, unreadable = collect(read_source())
    assert found
    assert unreadable == [], "write the whole id where it is raised or passed on"
    assert [
        id for id in found if not re.fullmatch(r"usage|[a-z]+(\.[a-z0-9]+(-[a-z0-9]+)*)", id)
    ] == []


def test_ids_are_seen_however_they_are_raised() -> None:
    found, unreadable = collect({"apr.planted": RAISES})
    assert {*found} == {
        "planted.fault",
        "planted.passed-on",
        "planted.gate",
        "planted.left",
        "planted.right",
    }
    assert found["planted.fault"].exit_codes == {4}
    assert found["planted.fault"].upstream_ids == {"GATE-9"}
    assert found["planted.gate"].exit_codes == {5}
    assert unreadable == []


def test_an_id_put_together_from_pieces_is_reported() -> None:
    pieces = RAISES.replace('"planted.fault"', 'f"planted.{path}"')
    assert collect({"apr.planted": pieces})[1] == ["apr.planted:8"]


def test_a_refusal_that_is_passed_on_whole_is_not_an_unreadable_id() -> None:
    text = "from apr.errors import Refusal\ndef f(old):\n    raise Refusal(old.id, 1, fix='')\n"
    assert collect({"apr.planted": text}) == ({}, [])


ENTRY = "### a.b\n\nExit 4. Upstream: X-1.\n\n**When** it is so.\n\n**Do** that.\n"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("", "a.b is not documented: here:1"),
        (ENTRY + ENTRY.replace("a.b", "c.d"), "c.d is documented, but nothing raises it"),
        (
            ENTRY.replace("4", "5"),
            "a.b should begin 'Exit 4. Upstream: X-1.', it begins 'Exit 5. U",
        ),
        (ENTRY.replace(" Upstream: X-1.", ""), "a.b should begin 'Exit 4. Upstream: X-1.', it be"),
        (ENTRY.replace("**Do** that.", ""), "a.b does not say **When** and **Do**"),
    ],
)
def test_each_disagreement_is_reported(document: str, problem: str) -> None:
    found = {"a.b": Found({4}, {"X-1"}, ["here:1"])}
    assert disagreements(found, ENTRY) == []
    (told,) = disagreements(found, document)
    assert told.startswith(problem)
