"""Writes unicode_tables.h: what Unicode's characters are to a tokenizer.

    python3 -m pip install unicodedata2==16.0.0 tokenizers==0.23.3
    python3 gen_unicode.py > unicode_tables.h

The regular expressions of the tokenizers library have Unicode 16, which unicodedata2 gives. Its other
parts have tables of other ages (accents of Unicode 8, decompositions of Unicode 9, digits of Unicode
17), so those are asked of the library itself, character by character. utf8proc has the
decompositions and lower-case letters; only where the library differs from it is a table kept here.
"""
import ctypes

import unicodedata2 as u
from tokenizers import normalizers, pre_tokenizers

LU, LL, LT, LM, LO, M, N, SPACE, P, S, WORD, MARK, NONSPACING, PUNCTUATION, OTHER, NUMERIC, PLAIN, \
    PLAIN_COMPAT = (1 << i for i in range(18))
LETTER = {"Lu": LU, "Ll": LL, "Lt": LT, "Lm": LM, "Lo": LO}
SPACES = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029,
          0x202F, 0x205F, 0x3000}
# Other_Alphabetic outside L, M and N, and Join_Control: what \w adds to the categories.
WORDS = {*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A),
         *range(0x1F170, 0x1F18A), 0x200C, 0x200D}
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

utf8proc = ctypes.CDLL("libutf8proc.so.2")
utf8proc.utf8proc_map.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t,
                                  ctypes.POINTER(ctypes.c_void_p), ctypes.c_int]
libc = ctypes.CDLL(None)


def decomposed(cp, compat):
    out, text = ctypes.c_void_p(), chr(cp).encode()
    n = utf8proc.utf8proc_map(text, len(text), ctypes.byref(out), 1 << 4 | (1 << 2 if compat else 0))
    result = ctypes.string_at(out, n).decode()
    libc.free(out)
    return result


def removed(normalizer):
    return {c for c in ALL if normalizer.normalize_str("x" + chr(c) + "y") == "xy"}


def split(pre_tokenizer):
    return {c for c in ALL if len(pre_tokenizer.pre_tokenize_str("x" + chr(c) + "x")) > 1}


def bert(**on):
    off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**off, **on})


asked = {
    MARK: removed(normalizers.StripAccents()),
    NONSPACING: removed(bert(strip_accents=True)),
    PUNCTUATION: split(pre_tokenizers.Punctuation()),
    OTHER: removed(bert(clean_text=True)),
    NUMERIC: split(pre_tokenizers.Digits(individual_digits=True)),
    PLAIN: {c for c in ALL if decomposed(c, False) != normalizers.NFD().normalize_str(chr(c))},
    PLAIN_COMPAT: {c for c in ALL if decomposed(c, True) != normalizers.NFKD().normalize_str(chr(c))},
}
lower = []
for c in ALL:
    text = normalizers.Lowercase().normalize_str(chr(c))
    if text != chr(utf8proc.utf8proc_tolower(c)) and len(text) == 1:
        lower.append(f"{{0x{c:x}, 0x{ord(text):x}}},")


def mask(cp):
    cat = u.category(chr(cp))
    m = LETTER.get(cat, 0)
    m |= {"M": M, "N": N, "P": P, "S": S}.get(cat[0], 0)
    if cp in SPACES:
        m |= SPACE
    if cat[0] in "LM" or cat in ("Nd", "Nl", "Pc") or cp in WORDS:
        m |= WORD
    return m | sum(bit for bit, members in asked.items() if cp in members)


def scripts():
    """Numbers of scripts by code point as UnicodeScripts tells them apart; 0 belongs to any."""
    tool, known, rows, last, before = pre_tokenizers.UnicodeScripts(), [], [], None, None

    def together(a, b):
        return len(tool.pre_tokenize_str(a + b)) == 1

    for cp in ALL:
        ch = chr(cp)
        if together("A", ch) and together("一", ch):
            number = 0
        elif before and last and together(before, ch):
            number = last
        else:
            number = next((i + 1 for i, k in enumerate(known) if together(k, ch)), None)
            if number is None:
                known.append(ch)
                number = len(known)
        if number != last:
            rows.append(f"0x{cp << 8 | number:x},")
        last, before = number, ch
    return rows


def rows(items, per_line):
    for i in range(0, len(items), per_line):
        print("    " + " ".join(items[i:i + per_line]))


starts, kinds, last = [], [], None
masks = {}
for cp in range(0x110000):
    m = mask(cp)
    if m != last:
        starts.append(f"0x{cp << 8 | masks.setdefault(m, len(masks)):x},")
        last = m
assert len(masks) < 256

print(f"""/* Made by gen_unicode.py from Unicode {u.unidata_version}; don't edit. */
/* clang-format off */

/* The masks (enum viv__class) that occur. */
static const uint32_t class_masks[] = {{""")
rows([f"0x{m:x}," for m in masks], 12)
print("""};

/* First code point << 8 | index of its mask; a row holds up to the next one's start. */
static const uint32_t class_rows[] = {""")
rows(starts, 9)
print("""};

/* First code point << 8 | number of its script, likewise; 0 goes with any script. */
static const uint32_t script_rows[] = {""")
rows(scripts(), 9)
print("""};

/* Lower-case letters that utf8proc does not know, by code point. */
static const struct {
  uint32_t cp, lower;
} lower_rows[] = {""")
rows(lower, 5)
print("};")
