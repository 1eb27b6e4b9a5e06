"""Into how many pieces of queries attention is cut; a plan asks this without torch."""

# More pieces leave out more of what is masked, need longer to compile, and their products become
# small: measured on two cores, docs/log.md.
_LONG, _PIECES_OF_LONG_ROWS, _PIECES, _SHORTEST = 1024, 8, 4, 64


def piece_length(num_positions: int) -> int:
    """How many queries a piece has; the last one has what is left."""
    num_pieces = _PIECES_OF_LONG_ROWS if num_positions >= _LONG else _PIECES
    return max(_SHORTEST, -(-num_positions // num_pieces))


def pieces_of(num_positions: int) -> list[tuple[int, int]]:
    """Where each piece of queries starts and stops; the keys it sees stop there as well."""
    size = piece_length(num_positions)
    starts = range(0, num_positions, size)
    return [(start, min(start + size, num_positions)) for start in starts]
