"""Writes unicode_tables.h: character classes and canonical (de)composition.

    python3 -m pip install unicodedata2==16.0.0 && python3 gen_unicode.py > unicode_tables.h

Takes the tables of unicodedata2 if it is installed, else those of the running Python; the header
names the version. The judge of the regex classes (Oniguruma in the tokenizers library) has
Unicode 16.
"""
try:
    import unicodedata2 as u
except ImportError:
    import unicodedata as u

LU, LL, LT, LM, LO, M, N, SPACE, P, S, WORD = (1 << i for i in range(11))
LETTER = {"Lu": LU, "Ll": LL, "Lt": LT, "Lm": LM, "Lo": LO}
SPACES = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029,
          0x202F, 0x205F, 0x3000}
# Other_Alphabetic outside L, M and N, and Join_Control: what \w adds to the categories.
WORDS = {*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A),
         *range(0x1F170, 0x1F18A), 0x200C, 0x200D}


def mask(cp):
    cat = u.category(chr(cp))
    m = LETTER.get(cat, 0)
    m |= {"M": M, "N": N, "P": P, "S": S}.get(cat[0], 0)
    if cp in SPACES:
        m |= SPACE
    if cat[0] in "LM" or cat in ("Nd", "Nl", "Pc") or cp in WORDS:
        m |= WORD
    return m


def rows(items, per_line):
    for i in range(0, len(items), per_line):
        print("    " + " ".join(items[i:i + per_line]))


classes, last = [], None
for cp in range(0x110000):
    m = mask(cp)
    if m != last:
        classes.append(f"0x{cp << 11 | m:08x},")
        last = m

ccc, last = [], 0
for cp in range(0x110000):
    c = u.combining(chr(cp))
    if c != last:
        ccc.append(f"0x{cp << 8 | c:x},")
        last = c

pairs, composed = [], []
for cp in range(0x110000):
    d = u.decomposition(chr(cp))
    if not d or d[0] == "<" or 0xAC00 <= cp < 0xD7A4:  # Hangul follows by arithmetic
        continue
    parts = [int(x, 16) for x in d.split()]
    a, b = parts[0], parts[1] if len(parts) > 1 else 0
    if b and u.normalize("NFC", chr(a) + chr(b)) == chr(cp):
        composed.append((a, b, len(pairs)))
    pairs.append(f"{{0x{cp:x}, 0x{a:x}, 0x{b:x}}},")
composed.sort()

print(f"""/* Made by gen_unicode.py from Unicode {u.unidata_version}; don't edit. */
/* clang-format off */

/* First code point << 11 | class mask (enum viv__class); a row holds up to the next one's start. */
static const uint32_t class_rows[] = {{""")
rows(classes, 8)
print("""};

/* First code point << 8 | canonical combining class, likewise. */
static const uint32_t ccc_rows[] = {""")
rows(ccc, 8)
print("""};

/* Canonical decompositions in one step, by code point; a singleton's second part is 0. */
static const struct {
  uint32_t cp, a, b;
} decomposition[] = {""")
rows(pairs, 3)
print("""};

/* Those of the above that compose, as their indices, by (a, b). */
static const uint16_t composition[] = {""")
rows([f"{i}," for _, _, i in composed], 16)
print("};")
