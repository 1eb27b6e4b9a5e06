"""What `apr bench train` measured, as a person reads it."""

from typing import Any

from apr.units import format_bytes


def train_text(facts: dict[str, Any]) -> str:
    """Model, ceiling, a line for each side, and where the time of a step goes."""
    sides = facts["sides"]
    ours = sides["apr"]
    width = max(map(len, sides))
    lines = [
        f"{facts['model']['num_parameters']:,} parameters, {facts['batch_size']} x "
        f"{facts['sequence_length']} tokens per step"
        + (f" in {facts['grad_accum']} micro-batches" if facts["grad_accum"] > 1 else "")
        + f", on {facts['device_name']}",
        _ceiling_line(ours["mfu"]),
        "",
        f"{'':<{width}}  {'tokens/s':>10}  {'steps':>15}  {'MFU, causal':>14}  {'memory':>9}"
        "  warm-up  ratio",
        *(_side_line(name, side, facts["ratios"].get(name), width) for name, side in sides.items()),
        *_rounds_lines(facts),
        *(f"INVALID {name}: {why}" for name, side in sides.items() for why in side["invalid"]),
        "",
        *_parts_lines(facts),
    ]
    return "\n".join(lines)


def _ceiling_line(mfu: dict[str, Any]) -> str:
    ceiling = mfu["ceiling"]
    if ceiling["flops_per_s"] is None:
        return mfu["reason"]
    sheet = mfu["sheet_flops_per_s"]
    beside = f"; the sheet says {_rate(sheet)}" if sheet else f"; {mfu['sheet_reason']}"
    measured = f"{_rate(ceiling['flops_per_s'])}: {ceiling['source']}"
    return f"MFU is of a measured ceiling of {measured}{beside}"


def _side_line(name: str, side: dict[str, Any], ratio: dict[str, Any] | None, width: int) -> str:
    if "failed" in side:
        return f"{name:<{width}}  failed: {side['failed']['id']}"
    step = side["step_s"]
    spread = f"{_time(step['shortest'])} .. {_time(step['longest'])}"
    mfu = side["mfu"]
    shares = (
        "no MFU"
        if mfu["conventional"] is None
        else f"{mfu['conventional']:.1%}, {mfu['causal']:.1%}"
    )
    peak = side["peak_memory_bytes"]
    times = ""
    if ratio is not None:
        times = "invalid" if ratio["median"] is None else f"{ratio['median']:.2f}"
    mark = "" if side["valid"] else "  INVALID"
    return (
        f"{name:<{width}}  {side['tokens_per_s']:>10,.0f}  {spread:>15}  {shares:>14}  "
        f"{format_bytes(peak) if peak else 'unknown':>9}  {side['warmup_s_by_round'][0]:>5.1f} s  "
        f"{times}{mark}"
    ).rstrip()


def _rounds_lines(facts: dict[str, Any]) -> list[str]:
    return [
        f"apr over {name}, by round: {', '.join(f'{each:.2f}' for each in ratio['by_round'])}"
        for name, ratio in facts["ratios"].items()
        if ratio["median"] is not None and len(ratio["by_round"]) > 1
    ]


def _parts_lines(facts: dict[str, Any]) -> list[str]:
    parts = facts["parts"]
    if parts is None:
        return [f"time by part: {facts['parts_reason']}"]
    lines = [
        f"time by part, of {_time(parts['step_s'])} per step while profiled "
        f"({facts['profiled_over_timed']:.2f} of a step that is not)"
    ]
    for name, seconds in parts["seconds"].items():
        if seconds is None:
            lines.append(f"  {name:<12} unknown: {parts['reasons'][name]}")
        else:
            lines.append(f"  {name:<12} {_time(seconds):>9}  {seconds / parts['step_s']:>6.1%}")
    checkpoint = facts["checkpoint"]
    if checkpoint["copy_s"] is not None:
        lines.append(
            f"  {'checkpoint':<12} {_time(checkpoint['copy_s']):>9}  {checkpoint['fraction']:>6.2%}"
            f"  the copy, at one per {checkpoint['steps_per_checkpoint']} steps"
        )
    return lines


def _time(elapsed_s: float) -> str:
    return f"{elapsed_s:.2f} s" if elapsed_s >= 1 else f"{elapsed_s * 1e3:.3g} ms"


def _rate(flops_per_s: float) -> str:
    if flops_per_s >= 1e12:
        return f"{flops_per_s / 1e12:.4g} TFLOP/s"
    return f"{flops_per_s / 1e9:.4g} GFLOP/s"
