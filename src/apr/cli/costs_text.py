"""What a run takes, as lines for a person; `apr plan` and `apr pretrain --dry-run` print them."""

from typing import Any

from apr.units import format_bytes, format_count, format_duration


def costs_lines(costs: dict[str, Any]) -> list[str]:
    """Parameters, tokens, time, memory and disk of a run, as `jobs.costs` says them."""
    memory, disk, flops, time = (costs[name] for name in ("memory", "disk", "flops", "time"))
    lines = [
        f"parameters  {costs['num_parameters']:,} ({format_count(costs['num_matmul_parameters'])} "
        "in matrix products)",
        f"tokens      {format_count(costs['planned_tokens'])} in {costs['num_steps']} steps of "
        f"{costs['batch_tokens']}; {_per_parameter(costs)}",
        f"data        {_data(costs)}",
        f"batch       {_batch(costs)}",
    ]
    if costs.get("copies"):
        lines.insert(-1, f"            {costs['copies']}")
    if costs.get("repetition"):
        lines.append(f"            {costs['repetition']}")
    lines += [
        f"arithmetic  {flops['total_conventional']:.3g} FLOPs, or {flops['total_causal']:.3g} with "
        "the causal half of attention",
        f"time        {_time(time)}",
        f"memory      {format_bytes(memory['peak_bytes'])} at the peak, {memory['moment']}; "
        f"{_offered(memory['available_bytes'], memory, 'available')}: {memory['verdict']}",
        *_parts(memory["parts"]),
        *_host(memory["host"]),
        f"disk        {format_bytes(disk['peak_bytes'])} at the fullest, "
        f"{format_bytes(disk['end_bytes'])} at the end; "
        f"{_offered(disk['free_bytes'], disk, 'free')}: {disk['verdict']}",
        *_parts(disk["parts"]),
    ]
    return lines


def _batch(costs: dict[str, Any]) -> str:
    twice = ", activations computed twice" if costs["activation_checkpointing"] else ""
    return f"{costs['grad_accum']} micro-batches of {costs['micro_batch_tokens']} tokens{twice}"


def _per_parameter(costs: dict[str, Any]) -> str:
    if costs["zone"] is None:
        return f"per parameter unknown: {costs['zone_reason']}"
    return f"{costs['tokens_per_parameter']:.3g} per parameter ({costs['zone']})"


def _data(costs: dict[str, Any]) -> str:
    if costs["unique_tokens"] is None:
        return f"unknown: {costs['unique_tokens_reason']}"
    return (
        f"{format_count(costs['unique_tokens'])} unique tokens, "
        f"{costs['epochs_over_data']:.3g} epochs, worth {format_count(costs['effective_tokens'])} "
        "new ones"
    )


def _time(time: dict[str, Any]) -> str:
    if time["hours"] is None:
        return f"unknown: {time['hours_reason']}"
    return (
        f"{format_duration(time['hours'] * 3600)} ({time['hours']:.3g} hours) at "
        f"{time['tokens_per_s']:.0f} tokens/s, {time['tokens_per_s_source']}"
    )


def _host(host: dict[str, Any] | None) -> list[str]:
    """What a run on a CUDA device takes of its host."""
    if host is None:
        return []
    offered = _offered(host["available_bytes"], host, "available")
    return [
        f"host memory {format_bytes(host['peak_bytes'])} beside the device; {offered}",
        *_parts(host["parts"]),
    ]


def _offered(size_bytes: int | None, facts: dict[str, Any], word: str) -> str:
    if size_bytes is None:
        return f"unknown what is {word}: {facts[f'{word}_bytes_reason']}"
    where = facts.get("available_source") or f"at {facts['free_at']}"
    return f"{format_bytes(size_bytes)} {word}, {where}"


def _parts(parts: dict[str, int]) -> list[str]:
    return [f"  {format_bytes(size):>10}  {name}" for name, size in parts.items() if size]
