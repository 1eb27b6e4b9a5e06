"""llama.cpp's SentencePiece encoder, written after `llm_tokenizer_spm_session` and not after ours.

Characters are symbols; the pair whose joined text is the token of the highest score is joined
first, the leftmost of equals; what is no token in the end is spelled byte by byte.
"""

import heapq
from collections.abc import Sequence


def encode(
    text: str, tokens: Sequence[str], scores: Sequence[float], *, add_space_prefix: bool
) -> list[int]:
    if not text:
        return []
    ids = {token: id for id, token in enumerate(tokens)}
    symbols = list(((" " if add_space_prefix else "") + text).replace(" ", "\u2581"))
    before = list(range(-1, len(symbols) - 1))
    after = [*range(1, len(symbols)), -1]
    queue: list[tuple[float, int, int, str]] = []

    def offer(left: int, right: int) -> None:
        if left == -1 or right == -1:
            return
        joined = symbols[left] + symbols[right]
        if joined in ids:
            heapq.heappush(queue, (-scores[ids[joined]], left, right, joined))

    for at in range(1, len(symbols)):
        offer(at - 1, at)
    while queue:
        _, left, right, joined = heapq.heappop(queue)
        if not symbols[left] or not symbols[right] or symbols[left] + symbols[right] != joined:
            continue
        symbols[left], symbols[right] = joined, ""
        after[left] = after[right]
        if after[right] != -1:
            before[after[right]] = left
        offer(before[left], left)
        offer(left, after[left])
    return [id for symbol in symbols for id in _spelled(symbol, ids)]


def _spelled(symbol: str, ids: dict[str, int]) -> list[int]:
    if symbol in ids:
        return [ids[symbol]]
    return [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
