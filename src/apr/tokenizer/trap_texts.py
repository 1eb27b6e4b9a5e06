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

from apr.tokenizer.definition import Definition

NUM_TEXTS = 20_000
SEED = 20_240_917
VERSION = 1
"""Goes up with any change to the texts: verdicts of other texts do not count."""

_NUM_PIECE_TEXTS = 4_000
_NUM_LONG_TEXTS = 24
_CODE_POINTS_PER_TEXT = 16

_SPACES = [*map(chr, (*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, 0x180E))]
_SPACES += [*map(chr, (*range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000))]
_LINE_ENDS = ["\n", "\r\n", "\r", "\n\n", "\n\n\n", "\r\n\r\n", "\n\r", " \n", "\t\n  ", "\n    "]
_APOSTROPHES = ["'", "\u2019", "\uff07", "\u02bc", "`", "\u2018", "''", '"']
_CONTRACTIONS = ["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ve", "vE", "M", "lL", "D"]
# Case folding: a long s is an s, a Kelvin sign a k, a dotted capital I two characters.
_CONTRACTIONS += ["\u017f", "\u212a", "\u0130", "\ufb06", "re'll", "s's", "tis", "ss", "l", "v"]
_WORDS = ["the", "ing", "Hello", "WORLD", "naïve", "Straße", "don", "I", "we", "été", "snake_case"]
_WORDS += ["Привет", "мир", "你好", "世界", "こんにちは", "カタカナ", "안녕", "مرحبا", "שלום"]
_WORDS += ["नमस्ते", "สวัสดี", "ქართული", "Ελλάδα", "ﬁne", "ǅ", "ʰ", "ª", "x\u0301"]
_DIGITS = ["0", "1", "12", "123", "1234", "00000000", "3.14", "1,000", "1e-9", "0xFF", "2nd"]
_DIGITS += [
    "٣",
    "٣٤٥",
    "५",
    "१२३४",
    "４",
    "１２３",
    "²",
    "³⁴",
    "½",
    "Ⅷ",
    "ⅻ",
    "一二",
    "〇",
    "𝟘𝟙",
    "①",
]
_MARKS = ["\u0301", "\u0323", "\u0308", "\u0327", "\u0345", "\u20d0", "\u3099", "\u302a", "\u0f39"]
_MARKS += ["\U0001d165", "\u1ac1", "\u0897", "\U0001e8d0", "\u05b0", "\u0651", "\u093c", "\u200d"]
# Singletons, exclusions, jamo, and compositions that Unicode 16 was the first to have.
_COMPOSED = ["e\u0301", "\u00e9", "A\u030a", "\u212b", "\u2126", "\u0958", "\ufb1d", "\u1f71"]
_COMPOSED += ["\u1100\u1161", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u1112\u1175\u11c2", "\u11a8"]
_COMPOSED += ["\U0001d15e", "\u0344", "\u2adc", "\u09c7\u09be", "\u0b47\u0b56", "q\u0323\u0307"]
_COMPOSED += ["\U00016d67\U00016d67", "\U00016d63\U00016d67", "\U00011382\U000113c9"]
_COMPOSED += ["\U000105d2\u0307", "\U000113c2\U000113b8", "\uf900", "\U0002f800", "\ufa10"]
_EMOJI = [
    "😀",
    "👩\u200d👩\u200d👧\u200d👦",
    "👍🏽",
    "🇩🇪",
    "🇩🇪🇫🇷🇩",
    "❤\ufe0f",
    "1\ufe0f\u20e3",
    "\u00a9\ufe0f",
]
_EMOJI += ["🏴\U000e0067\U000e0062\U000e007f", "🫨", "🫩", "♥\ufe0e", "👁\ufe0f\u200d🗨\ufe0f"]
_CONTROLS = ["<|endoftext|>", "<|fim_prefix|>", "<tool_call>", "</s>", "<s>", "<unk>", "[PAD]"]
_CONTROLS += ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<0x0A>", "\u2581the", "Ġthe", "Ċ"]
_CODE = [
    "def f(x):\n    return x\n",
    "if (a != b) {\n\t++i;\n}\r\n",
    "#include <stdio.h>\n",
    "x->y",
]
_CODE += [
    "// TODO(me): fix\n",
    "'''doc'''",
    "f'{x!r:>10}'",
    "a[i][j] += 0.5e-3;",
    "</div>\n",
    "\\n",
]
_CODE += ['{"key": [1, 2.0, null]}', "::std::vector<int>", "SELECT * FROM t;", "=" * 40, "-" * 80]
_ODD = [
    "\0",
    "\x01\x02",
    "\x7f",
    "\x80\x81",
    "\ufeff",
    "\ufffd",
    "\ufffe",
    "\uffff",
    "\u200b",
    "\xad",
]
_ODD += ["\u202e", "\ue000", "\U000f0000", "\U0010ffff", "\U00010d50", "\u1c89", "\ua7cb", "\u0897"]
_PUNCTUATION = [*'!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~', "...", "--", "?!", "—", "„", "«", "。", "、"]
_FIXED_ATOMS: Sequence[Sequence[str]] = [
    *(_SPACES, _LINE_ENDS, _WORDS, _DIGITS, _MARKS, _COMPOSED, _EMOJI, _CODE, _ODD, _PUNCTUATION),
]
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
        kind = kinds[number % len(kinds)]
        atoms = [
            (kind if random.random() < 0.7 else random.choice(kinds))(random)
            for _ in range(random.randrange(1, 24))
        ]
        yield "".join(atoms)
    for number in range(_NUM_LONG_TEXTS):
        unit = kinds[number % len(kinds)](random)
        yield unit * (2_000 // max(1, len(unit))) + "end"


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
    controls = [*_CONTROLS, *(token.content for token in definition.added_tokens)]
    letters = [piece for piece in pieces if piece.isalpha()] or list(pieces)
    fixed = [_one_of(atoms) for atoms in (*_FIXED_ATOMS, controls)]
    made: list[Kind] = [
        lambda random: random.choice(_APOSTROPHES) + random.choice(_CONTRACTIONS),
        lambda random: random.choice(_SPACES) * random.randrange(1, 6),
        lambda random: "".join(random.choices("0123456789", k=random.randrange(1, 12))),
        lambda random: random.choice("aeiouAEO가한") + "".join(random.choices(_MARKS, k=3)),
        lambda random: _spelled(random.choices(letters, k=random.randrange(2, 9))),
        lambda random: _spelled(random.choices(pieces, k=random.randrange(1, 5))),
        lambda random: random.randbytes(random.randrange(1, 24)).decode("latin-1"),
        _any_code_point,
    ]
    return [*fixed, *made]


def _one_of(atoms: Sequence[str]) -> Kind:
    return lambda random: random.choice(atoms)


def _any_code_point(random: Random) -> str:
    ceiling = random.choice([0x80, 0x250, 0x600, 0x3000, 0xD800, 0x20000, 0x110000])
    code_point = random.randrange(ceiling)
    return "\ufffd" if 0xD800 <= code_point < 0xE000 else chr(code_point)


def _spelled(pieces: Sequence[str]) -> str:
    """The text that byte-level pieces stand for; half a character becomes U+FFFD."""
    return decoders.ByteLevel().decode(list(pieces))
