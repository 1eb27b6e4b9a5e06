"""How many tokens the loss takes through the output head at a time."""

_MIB = 1 << 20
# What the logits of a chunk may take in fp32. Adding up the gradient of the head costs a pass over
# it per chunk, so that small chunks are slow; docs/log.md has what was measured.
_LOGITS_BYTES_ON_CPU, _LOGITS_BYTES_ELSEWHERE = 512 * _MIB, 4096 * _MIB
_FP32_BYTES = 4


def tokens_per_chunk(vocab_size: int, *, on_cpu: bool) -> int:
    """The most tokens whose fp32 logits stay within a fixed number of bytes.

    A power of two, so that the usual micro-batches divide into equal chunks, which one compiled
    kernel serves. It follows from the vocabulary and the kind of device alone: a run that is
    started again, or plans its memory beforehand, has the same.
    """
    budget_bytes = _LOGITS_BYTES_ON_CPU if on_cpu else _LOGITS_BYTES_ELSEWHERE
    tokens = max(1, budget_bytes // (_FP32_BYTES * vocab_size))
    return 1 << (tokens.bit_length() - 1)
