"""The atoms of trap texts: what encoders have been seen to cut, fold or compose differently.

Most are written as code points, as some have no shape of their own and others change the
direction of the line they stand in.
"""

SPACES = [
    *map(chr, [*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, 0x180E]),
    *map(chr, [*range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000]),
]
LINE_ENDS = ["\n", "\r\n", "\r", "\n\n", "\n\n\n", "\r\n\r\n", "\n\r", " \n", "\t\n  ", "\n    "]

APOSTROPHES = ["'", "\u2019", "\uff07", "\u02bc", "`", "\u2018", "''", '"']
# Case folding: a long s is an s, a Kelvin sign a k, a dotted capital I two characters.
CONTRACTIONS = [
    *("s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ve", "vE", "M", "lL", "D", "l", "v"),
    *("\u017f", "\u212a", "\u0130", "\ufb06", "re'll", "s's", "tis", "ss", "\u017fs"),
]

WORDS = [
    *("the", "ing", "Hello", "WORLD", "don", "I", "we", "snake_case", "camelCase", "x86_64"),
    *("na\u00efve", "Stra\u00dfe", "\u00e9t\u00e9", "\ufb01ne", "\u01c5", "\u02b0", "\u00aa"),
]
SCRIPTS = [
    *(range(0x0410, 0x0450), range(0x03B1, 0x03CA), range(0x05D0, 0x05EB), range(0x0627, 0x063B)),
    *(range(0x0905, 0x0940), range(0x0E01, 0x0E4F), range(0x10D0, 0x10F1), range(0x1100, 0x1200)),
    *(range(0x3041, 0x3097), range(0x30A1, 0x30FB), range(0x4E00, 0x4F00), range(0x9F00, 0xA000)),
    *(range(0xAC00, 0xAD00), range(0xFF21, 0xFF5B), range(0x13000, 0x13040), range(0x1F00, 0x2000)),
    *(
        range(0x1D400, 0x1D4C0),
        range(0x20000, 0x20040),
        range(0x0D05, 0x0D3A),
        range(0x0F40, 0x0FBD),
    ),
]

NUMBERS = ["0", "1", "12", "123", "1234", "00000000", "3.14", "1,000", "1e-9", "0xFF", "2nd"]
DIGITS_FROM = [0x30, 0x0660, 0x0966, 0x0E50, 0xFF10, 0x1D7D8, 0x1E950]
"""Where ten decimal digits begin."""
NUMERALS = [*map(chr, [0xB2, 0xBD, 0x2167, 0x217B, 0x2460, 0x3007, 0x4E8C, 0x10107, 0x1F10A])]

MARKS = [
    *map(chr, [0x0301, 0x0323, 0x0308, 0x0327, 0x0345, 0x20D0, 0x3099, 0x302A, 0x0F39, 0x1D165]),
    *map(chr, [0x1AC1, 0x0897, 0x1E8D0, 0x05B0, 0x0651, 0x093C, 0x200C, 0x200D, 0x034F, 0xFE0F]),
]
# Singletons, exclusions, jamo, and compositions that Unicode 16 was the first to have.
COMPOSED = [
    *("e\u0301", "\u00e9", "A\u030a", "\u212b", "\u2126", "\u0958", "\ufb1d", "\u1f71", "\ufa10"),
    *("\u1100\u1161", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u1112\u1175\u11c2", "\u11a8\u1100"),
    *("\U0001d15e", "\u0344", "\u2adc", "\u09c7\u09be", "\u0b47\u0b56", "q\u0323\u0307", "\uf900"),
    *("\U00016d67\U00016d67", "\U00016d63\U00016d67", "\U00011382\U000113c9", "\U0002f800"),
    *("\U000105d2\u0307", "\U000113c2\U000113b8", "\u0f71\u0f72", "\u1e9b\u0323", "a\u0328\u0301"),
]
EMOJI = [
    *(
        "\U0001f600",
        "\U0001f44d\U0001f3fd",
        "\U0001f1e9\U0001f1ea",
        "\U0001f1e9\U0001f1ea\U0001f1eb",
    ),
    *("\u2764\ufe0f", "1\ufe0f\u20e3", "\u00a9\ufe0f", "\u2665\ufe0e", "\U0001fae8", "\U0001fae9"),
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    "\U0001f441\ufe0f\u200d\U0001f5e8\ufe0f",
]

CONTROLS = [
    *("<|endoftext|>", "<|fim_prefix|>", "<tool_call>", "<|im_start|>", "<|begin_of_text|>"),
    *("</s>", "<s>", "<unk>", "[PAD]", "<0x0A>", "\u2581the", "\u0120the", "\u010a", "##ing"),
]
CODE = [
    *("def f(x):\n    return x\n", "if (a != b) {\n\t++i;\n}\r\n", "#include <stdio.h>\n", "x->y"),
    *("// see (me): fix\n", "'''doc'''", "f'{x!r:>10}'", "a[i][j] += 0.5e-3;", "</div>\n", "\\n"),
    *('{"key": [1, 2.0, null]}', "::std::vector<int>", "SELECT * FROM t;", "=" * 40, "-" * 80),
]
PUNCTUATION = [
    *("!", "#", "$", "%", "&", "(", ")", "*", "+", ",", "-", ".", "/", ":", ";", "<", "=", ">"),
    *("?", "@", "[", "\\", "]", "^", "_", "{", "|", "}", "~", "...", "--", "?!", "//", "=="),
    *("\u2014", "\u201e", "\u00ab", "\u3002", "\u3001", "\uff0c", "\u00bf", "\u2026"),
]
# NUL, C1, private use, noncharacters, and letters that Unicode 16 and 17 brought.
ODD = [
    *("\0", "\x01\x02", "\x7f", "\x80\x81", "\xad", "\ufeff", "\ufffd", "\ufffe", "\uffff"),
    *("\u200b", "\u202e", "\ue000", "\U000f0000", "\U0010ffff", "\u1c89", "\U00010d50"),
    *("\u088f", "\ua7f1", "\U00010940", "\U000323b0"),
]
