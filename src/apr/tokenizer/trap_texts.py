"""Texts on which encoders are known to part ways, made from a seed.

Every fast encoder replaces the regular expression that cuts text into words by code of its own,
and carries its own Unicode tables. What tells two of them apart is rarely in a corpus: an
apostrophe with a long s, a no-break space before a line end, a mark that a newer Unicode knows.
So texts are put together from such atoms, mixed; and each piece of the vocabulary and each code
point that may be assigned is in some text.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from tokenizers import decoders

from apr.tokenizer import trap_atoms as atoms
from apr.tokenizer.definition import Definition

NUM_TEXTS = 20_000
SEED = 20_240_917
VERSION = 1
"""Goes up with any change to the texts: verdicts of other texts do not count."""

_NUM_PIECE_TEXTS = 4_000
_NUM_LONG_TEXTS = 42
_LONG_CHARACTERS = 4_000
_OWN_SHARE = 0.7
_CODE_POINTS_PER_TEXT = 16

# Where a character's class and its combining class decide how its neighbours are cut.
_CODE_POINT_CONTEXT = "{0}.the  {0}1234 e{0}\u0323\n"


def trap_texts(definition: Definition) -> Iterator[str]:
    """The texts for one tokenizer, always the same ones: `NUM_TEXTS` of them."""
    random = Random(SEED)
    pieces = sorted(definition.vocab)
    random.shuffle(pieces)
    per_text = -(-len(pieces) // _NUM_PIECE_TEXTS)
    for start in range(0, per_text * _NUM_PIECE_TEXTS, per_text):
        # A small vocabulary comes round again; each piece is in some text.
        chosen = [pieces[index % len(pieces)] for index in range(start, start + per_text)]
        yield _spelled(chosen)
    kinds = _kinds(definition, pieces)
    for number in range(NUM_TEXTS - _NUM_PIECE_TEXTS - _NUM_LONG_TEXTS):
        own = kinds[number % len(kinds)]
        parts = (
            (own if random.random() < _OWN_SHARE else random.choice(kinds))(random)
            for _ in range(random.randrange(1, 24))
        )
        yield "".join(parts)
    for number in range(_NUM_LONG_TEXTS):
        unit = kinds[number % len(kinds)](random)
        yield unit * (_LONG_CHARACTERS // len(unit)) + "end"


def code_points() -> Iterator[int]:
    """Every code point of the planes that Unicode assigns, and each 64th of the others."""
    whole = (range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE1000))
    for part in (*whole, range(0x40000, 0xE0000, 64), range(0xE1000, 0x110000, 64)):
        yield from part


def num_code_points() -> int:
    """How many `code_points` there are."""
    return sum(1 for _ in code_points())


def num_code_point_texts() -> int:
    """How many texts hold them."""
    return -(-num_code_points() // _CODE_POINTS_PER_TEXT)


def code_point_texts() -> Iterator[str]:
    """Texts that together hold each of `code_points`, where its class shows."""
    texts: list[str] = []
    for code_point in code_points():
        texts.append(_CODE_POINT_CONTEXT.format(chr(code_point)))
        if len(texts) == _CODE_POINTS_PER_TEXT:
            yield "".join(texts)
            texts = []
    if texts:
        yield "".join(texts)


Kind = Callable[[Random], str]


def _kinds(definition: Definition, pieces: Sequence[str]) -> list[Kind]:
    controls = [*atoms.CONTROLS, *(token.content for token in definition.added_tokens)]
    letters = [piece for piece in pieces if piece.isalpha()] or list(pieces)
    fixed = [
        *(atoms.SPACES, atoms.LINE_ENDS, atoms.WORDS, atoms.NUMBERS, atoms.NUMERALS, atoms.MARKS),
        *(atoms.COMPOSED, atoms.EMOJI, atoms.CODE, atoms.PUNCTUATION, atoms.ODD, controls),
    ]
    made: list[Kind] = [
        lambda random: random.choice(atoms.APOSTROPHES) + random.choice(atoms.CONTRACTIONS),
        lambda random: random.choice(atoms.SPACES) * random.randrange(1, 6),
        lambda random: random.choice("aeiouAEO") + "".join(random.choices(atoms.MARKS, k=3)),
        lambda random: _spelled(random.choices(letters, k=random.randrange(2, 9))),
        lambda random: _spelled(random.choices(pieces, k=random.randrange(1, 5))),
        lambda random: random.randbytes(random.randrange(1, 24)).decode("latin-1"),
        _word_of_a_script,
        _run_of_digits,
        _any_code_point,
    ]
    return [*map(_one_of, fixed), *made]


def _one_of(choices: Sequence[str]) -> Kind:
    return lambda random: random.choice(choices)


def _word_of_a_script(random: Random) -> str:
    script = random.choice(atoms.SCRIPTS)
    return "".join(map(chr, random.choices(script, k=random.randrange(1, 9))))


def _run_of_digits(random: Random) -> str:
    zero = random.choice(atoms.DIGITS_FROM)
    return "".join(chr(zero + random.randrange(10)) for _ in range(random.randrange(1, 12)))


def _any_code_point(random: Random) -> str:
    ceiling = random.choice([0x80, 0x250, 0x600, 0x3000, 0xD800, 0x20000, 0x110000])
    code_point = random.randrange(ceiling)
    return "\ufffd" if 0xD800 <= code_point < 0xE000 else chr(code_point)


def _spelled(pieces: Sequence[str]) -> str:
    """The text that byte-level pieces stand for; half a character becomes U+FFFD."""
    return decoders.ByteLevel().decode(list(pieces))
