"""What rounds come to: ratios of neighbours, the best ceiling, a peer that failed."""

from tests.bench_sides import ceiling, side, tiny_work

from apr.bench.rounds import summarize
from apr.cli.bench.train_text import train_text
from apr.errors import Refusal

WORK = tiny_work()
OUT_OF_MEMORY = Refusal("bench.out-of-memory", "peer", found="40 GB", expected="less", fix="shrink")


def test_the_ratio_is_taken_in_every_round() -> None:
    """A host that slows down by half between the rounds changes no ratio."""
    quick = {"apr": side(WORK, step_s=(0.1,)), "peer": side(WORK, step_s=(0.3,))}
    slow = {"apr": side(WORK, step_s=(0.2,)), "peer": side(WORK, step_s=(0.6,))}
    ratio = summarize(WORK, [quick, slow])["ratios"]["peer"]
    assert [round(each, 6) for each in ratio["by_round"]] == [3.0, 3.0]


def test_the_best_ceiling_of_all_rounds_counts() -> None:
    rounds = [{"apr": side(WORK, ceiling=ceiling(each))} for each in (2e8, 1e12, 3e8)]
    facts = summarize(WORK, rounds)
    assert facts["valid"], "one ceiling was cut short by another program, and not the rate too high"
    assert facts["sides"]["apr"]["mfu"]["ceiling"]["flops_per_s"] == 1e12


def test_a_peer_that_failed_is_an_answer() -> None:
    facts = summarize(WORK, [{"apr": side(WORK), "peer": OUT_OF_MEMORY}])
    assert facts["sides"]["peer"]["failed"]["id"] == "bench.out-of-memory"
    assert facts["ratios"]["peer"]["median"] is None
    assert "peer  failed: bench.out-of-memory" in train_text(facts)


def test_what_was_not_measured_is_null_with_a_reason() -> None:
    facts = summarize(WORK, [{"apr": side(WORK, peak_memory_bytes=None, ceiling=ceiling(None))}])
    assert facts["parts"] is None
    assert facts["parts_reason"]
    assert facts["data_wait_fraction"] is None
    assert facts["sides"]["apr"]["peak_memory_bytes"] is None
    text = train_text(facts)
    assert "no MFU: measured by nobody" in text
    assert "unknown" in text


def test_an_invalid_figure_is_marked_for_a_person() -> None:
    fast = side(WORK, step_s=(1e-7,))
    text = train_text(summarize(WORK, [{"apr": fast, "peer": side(WORK)}]))
    assert "INVALID apr: conventional" in text
    assert "  invalid" in text
    assert "INVALID" not in train_text(summarize(WORK, [{"apr": side(WORK)}]))
