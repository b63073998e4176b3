"""The questions: every task makes (question, steps, answer) triples from a random generator.

A question is named by a key that doesn't depend on its wording ("sum:345+1278"), and a hash of the key says
whether it is held out.  The training stream skips the held-out keys, the evaluation file has no others, so no
phrasing of a question of the evaluation has been seen in training."""

import hashlib
import random

MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]
DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

# Out of a thousand keys, so many are held out.
HELD_OUT = {"sum": 20, "difference": 20, "product": 50, "weekday": 30, "to_roman": 100, "from_roman": 100,
            "units": 80, "letters": 20, "sort": 20}


def held_out(task, key):
    digest = hashlib.sha256(f"vivarium reasoner {task}:{key}".encode()).digest()
    return int.from_bytes(digest[:4], "little") % 1000 < HELD_OUT[task]


# ---- arithmetic by columns -------------------------------------------------------------------------------

def add_columns(a, b):
    """345 + 1278 -> "5+8=13 4+7+1=12 3+2+1=6 0+1=1", and the sum."""
    steps, carry = [], 0
    x, y = str(a)[::-1], str(b)[::-1]
    for i in range(max(len(x), len(y))):
        p, q = int(x[i]) if i < len(x) else 0, int(y[i]) if i < len(y) else 0
        total = p + q + carry
        steps.append(f"{p}+{q}{'+1' if carry else ''}={total}")
        carry = total // 10
    return " ".join(steps), a + b


def subtract_columns(a, b):
    """1623 - 345 (a >= b) -> "3-5=-2+10=8 2-4-1=-3+10=7 6-3-1=2 1-0=1": a column that turns out negative borrows ten."""
    steps, borrow = [], 0
    x, y = str(a)[::-1], str(b)[::-1]
    for i in range(len(x)):
        p, q = int(x[i]), int(y[i]) if i < len(y) else 0
        d = p - q - borrow
        steps.append(f"{p}-{q}{'-1' if borrow else ''}={d}" + (f"+10={d + 10}" if d < 0 else ""))
        borrow = int(d < 0)
    return " ".join(steps)


def times_digit(a, d):
    """345 * 7 -> "5*7=35 4*7=28+3=31 3*7=21+3=24 so 2415"."""
    steps, carry = [], 0
    for c in str(a)[::-1]:
        p = int(c) * d
        steps.append(f"{c}*{d}={p}" + (f"+{carry}={p + carry}" if carry else ""))
        carry = (p + carry) // 10
    return " ".join(steps) + f" so {a * d}"


def sized(r, most):
    """A number with a uniformly drawn count of digits, up to `most`."""
    n = r.choice([1] + [i for i in range(2, most + 1) for _ in range(2)])
    return r.randrange(0 if n == 1 else 10 ** (n - 1), 10 ** n)


def sum_(r):
    a, b = sized(r, 4), sized(r, 4)
    s = r.choice([" + ", "+"])
    q = r.choice([f"What is {a}{s}{b}?", f"What's {a}{s}{b}?", f"{a}{s}{b} = ?", f"{a}{s}{b}", f"{a}{s}{b}=?", f"Add {a} and {b}.",
                  f"Calculate {a}{s}{b}.", f"What is the sum of {a} and {b}?", f"What is {a} plus {b}?",
                  f"How much is {a}{s}{b}?", f"Add {b} to {a}."])
    steps, total = add_columns(a, b)
    return f"{min(a, b)}+{max(a, b)}", q, steps, str(total)


def difference(r):
    a, b = sized(r, 4), sized(r, 4)
    if a < b and r.random() < 0.5:
        a, b = b, a
    s = r.choice([" - ", "-"])
    q = r.choice([f"What is {a}{s}{b}?", f"What's {a}{s}{b}?", f"{a}{s}{b} = ?", f"{a}{s}{b}", f"{a}{s}{b}=?", f"Subtract {b} from {a}.",
                  f"Calculate {a}{s}{b}.", f"What is the difference of {a} and {b}?", f"What is {a} minus {b}?",
                  f"How much is {a}{s}{b}?", f"Take {b} away from {a}."])
    steps = subtract_columns(a, b) if a >= b else "swap " + subtract_columns(b, a)
    return f"{max(a, b)}-{min(a, b)}", q, steps, str(a - b)


def product_steps(a, b):
    ones = times_digit(a, b % 10)
    if b < 10:
        return ones
    return f"{ones}; {times_digit(a, b // 10)}0; {add_columns(a * (b % 10), a * (b // 10) * 10)[0]}"


def product(r):
    a, b = sized(r, 3), r.choice([sized(r, 2), r.randrange(10, 100)])
    s = r.choice([" * ", "*", " x ", "x", " × ", "×"])
    q = r.choice([f"What is {a}{s}{b}?", f"What's {a}{s}{b}?", f"{a}{s}{b} = ?", f"{a}{s}{b}", f"{a}{s}{b}=?", f"Multiply {a} by {b}.",
                  f"Calculate {a}{s}{b}.", f"What is the product of {a} and {b}?", f"What is {a} times {b}?",
                  f"How much is {a}{s}{b}?"])
    return f"{min(a, b)}*{max(a, b)}", q, product_steps(a, b), str(a * b)


# ---- dates ---------------------------------------------------------------------------------------------------

# What a month adds to the doomsday of the year, modulo 7 (January and February: in a common year, in a leap year).
MONTH_CODE = {"January": (4, 3), "February": (0, 6), "March": 0, "April": 3, "May": 5, "June": 1, "July": 3,
              "August": 6, "September": 2, "October": 4, "November": 0, "December": 2}
ANCHOR = {19: 3, 20: 2}


def weekday_steps(year, month, day):
    """14 March 1987 -> "87=7*12+3 3/4=0 7+3+0+3=13%7=6 March 0 6+14+0=20%7=6" (6 is Saturday)."""
    yy = year % 100
    q, m = divmod(yy, 12)
    total = q + m + m // 4 + ANCHOR[year // 100]
    doomsday = total % 7
    name = MONTHS[month - 1]
    code = MONTH_CODE[name]
    label = name
    if month <= 2:
        leap = year % 4 == 0 and year != 1900
        label += " leap" if leap else " common"
        code = code[leap]
    last = doomsday + day + code
    steps = (f"{yy}={q}*12+{m} {m}/4={m // 4} {q}+{m}+{m // 4}+{ANCHOR[year // 100]}={total}%7={doomsday} "
             f"{label} {code} {doomsday}+{day}+{code}={last}%7={last % 7}")
    return steps, DAYS[last % 7]


def weekday(r):
    year, month = r.randrange(1900, 2100), r.randrange(1, 13)
    days = [31, 29 if year % 4 == 0 and year != 1900 else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
    day = r.randrange(1, days + 1)
    name = MONTHS[month - 1]
    date = r.choice([f"{day} {name} {year}", f"{day} {name} {year}", f"{name} {day}, {year}", f"{year}-{month:02d}-{day:02d}"])
    q = r.choice([f"What weekday was {date}?", f"What weekday is {date}?", f"What day of the week was {date}?",
                  f"What day of the week is {date}?", f"Which weekday was {date}?", f"On what day did {date} fall?",
                  f"Weekday of {date}?", f"Tell me the weekday of {date}."])
    steps, answer = weekday_steps(year, month, day)
    return f"{year}-{month}-{day}", q, steps, answer


# ---- Roman numerals ----------------------------------------------------------------------------------------

DIGITS = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]


def roman_parts(n):
    """1994 -> [(1000, "M"), (900, "CM"), (90, "XC"), (4, "IV")]."""
    parts = []
    for place, table in ((1000, str.maketrans("I", "M")), (100, str.maketrans("IVX", "CDM")),
                         (10, str.maketrans("IVX", "XLC")), (1, {})):
        d = n // place % 10
        if d:
            parts.append((d * place, DIGITS[d].translate(table)))
    return parts


def number_for_roman(r):
    return r.choice([r.randrange(1, 4000), r.randrange(1, 4000), r.randrange(1500, 2100), sized(r, 3) or 1])


def to_roman(r):
    n = number_for_roman(r)
    q = r.choice([f"Write {n} in Roman numerals.", f"What is {n} in Roman numerals?", f"{n} in Roman numerals?",
                  f"{n} as a Roman numeral?", f"Convert {n} to Roman numerals.", f"How do you write {n} as a Roman numeral?"])
    parts = roman_parts(n)
    return str(n), q, " ".join(f"{v}={s}" for v, s in parts), "".join(s for _, s in parts)


def from_roman(r):
    n = number_for_roman(r)
    parts = roman_parts(n)
    s = "".join(s for _, s in parts)
    q = r.choice([f"What number is {s}?", f"What is {s} in decimal?", f"Convert {s} to a number.", f"{s} = ?",
                  f"What number is the Roman numeral {s}?", f"What does {s} mean?", f"Read the Roman numeral {s}."])
    return str(n), q, " ".join(f"{s}={v}" for v, s in parts), str(n)


# ---- units -------------------------------------------------------------------------------------------------

FACTORS = [("km", "m", 1000), ("m", "cm", 100), ("cm", "mm", 10), ("m", "mm", 1000), ("kg", "g", 1000),
           ("g", "mg", 1000), ("t", "kg", 1000), ("l", "ml", 1000), ("h", "min", 60), ("min", "s", 60)]
NAMES = {"km": "kilometres", "m": "metres", "cm": "centimetres", "mm": "millimetres", "kg": "kilograms",
         "g": "grams", "mg": "milligrams", "t": "tonnes", "l": "litres", "ml": "millilitres", "h": "hours", "min": "minutes", "s": "seconds"}


def divide_by_6(n):
    """282 -> "28/6=4 r 4 42/6=7": long division, n a multiple of 6 with a quotient below 100."""
    if n < 60:
        return f"{n}/6={n // 6}"
    first, last = divmod(n, 10)
    rest = first % 6
    return f"{first}/6={first // 6} r {rest} {rest * 10 + last}/6={(rest * 10 + last) // 6}"


def units(r):
    if r.random() < 0.15:
        # 23 °C: 18 tenths of a °F for each °C, and 32 more.
        c = r.randrange(0, 301)
        tenths = c * 18
        f = tenths + 320
        steps, carry = [], 0
        for digit in str(c)[::-1]:
            p = int(digit) * 18
            steps.append(f"{digit}*18={p}" + (f"+{carry}={p + carry}" if carry else ""))
            carry = (p + carry) // 10
        q = r.choice([f"Convert {c} °C to °F.", f"What is {c} °C in °F?", f"{c} °C in °F?", f"How many °F are {c} °C?",
                      f"{c}°C in °F?", f"Convert {c} degrees Celsius to Fahrenheit."])
        decimal = lambda n: f"{n // 10}.{n % 10}"
        whole, point = divmod(tenths, 10)
        text = " ".join(steps) + f" so {decimal(tenths)}; {add_columns(whole, 32)[0]}"
        return f"{c}C", q, text, (decimal(f) if f % 10 else str(f // 10)) + " °F"
    big, small, factor = r.choice(FACTORS)
    n = r.choice([r.randrange(1, 100), r.randrange(1, 100), sized(r, 3) or 1]) if factor != 60 else r.randrange(1, 100)
    if r.random() < 0.5:
        a, b, x, y = big, small, n, n * factor
        if factor == 60:
            steps = f"{x}*60: {times_digit(x, 6)}0"
        else:
            steps = f"{x}*{factor}={y}"
    else:
        a, b, x, y = small, big, n * factor, n
        steps = f"{x}/60: {divide_by_6(x // 10)} so {y}" if factor == 60 else f"{x}/{factor}={y}"
    A, B = (NAMES[a], NAMES[b]) if r.random() < 0.4 else (a, b)
    q = r.choice([f"Convert {x} {A} to {B}.", f"How many {B} are {x} {A}?", f"{x} {A} in {B}?", f"What is {x} {A} in {B}?",
                  f"How many {B} is {x} {A}?", f"How many {B} are in {x} {A}?", f"{x} {A} to {B}"])
    return f"{x}{a}-{b}", q, steps, f"{y} {b}"


# ---- letters -----------------------------------------------------------------------------------------------

WORDS = """apple banana cherry strawberry raspberry blueberry orange lemon grape melon tomato potato carrot onion pepper
garlic cabbage spinach pumpkin mushroom bread butter cheese coffee chocolate sugar honey cookie dinner breakfast kitchen
table chair window door garden flower forest mountain river ocean island desert valley meadow winter summer spring autumn
weather thunder lightning rainbow cloud storm snow sunshine moonlight planet galaxy universe rocket satellite telescope
computer keyboard program language sentence paragraph dictionary library school teacher student lesson pencil paper
notebook history science physics chemistry biology mathematics geometry algebra equation question answer music piano
guitar violin trumpet orchestra concert theatre painting picture museum gallery camera animal elephant giraffe zebra tiger
lion monkey kangaroo penguin parrot eagle sparrow butterfly spider lizard turtle dolphin whale shark salmon horse rabbit
hamster kitten puppy chicken family brother sister mother father grandmother uncle cousin neighbour friend holiday birthday
christmas present balloon bicycle motorcycle airplane helicopter submarine train station airport harbour bridge tunnel
street village castle palace temple church hospital doctor nurse medicine engineer carpenter farmer soldier sailor pirate
mississippi tennessee committee assessment possession bookkeeper balloonist successful necessary accommodate""".split()


def pseudo_word(r):
    """A random word that can be pronounced: consonants, vowels, now and then a double letter."""
    onsets = ["b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "y", "z", "br", "ch", "cl", "cr",
              "dr", "fl", "gr", "pl", "pr", "qu", "sh", "sk", "sp", "st", "str", "th", "tr", "", "x"]
    vowels = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ea", "ee", "oo", "ou", "ai"]
    codas = ["", "", "", "n", "r", "s", "t", "l", "m", "nd", "rr", "ss", "tt", "ll", "pp", "ck", "ng"]
    return "".join(r.choice(onsets) + r.choice(vowels) + r.choice(codas) for _ in range(r.choice([1, 2, 2, 3, 3, 4])))[:13]


def letters(r):
    word = r.choice(WORDS) if r.random() < 0.35 else pseudo_word(r)
    letter = r.choice(word) if r.random() < 0.85 else r.choice("abcdefghijklmnopqrstuvwxyz")
    w = r.choice([word, f'"{word}"'])
    c = r.choice([letter, f'"{letter}"'])
    q = r.choice([f"How many {c} are in {w}?", f"How many times does {c} occur in {w}?", f"Count the letter {c} in {w}.",
                  f"How often does the letter {c} occur in {w}?", f"How many {c} are there in the word {w}?",
                  f"How many letters {c} does {w} have?"])
    steps, count = "", 0
    for x in word:
        steps += x
        if x == letter:
            count += 1
            steps += str(count)
    return f"{letter} {word}", q, steps, str(count)


# ---- sorting -----------------------------------------------------------------------------------------------

def sort(r):
    most = r.choice([100, 100, 1000])
    numbers = r.sample(range(most), r.choice([3, 4, 4, 5, 5]))
    s = r.choice([", ", " "])
    text = s.join(map(str, numbers))
    q = r.choice([f"Sort {text}.", f"Sort: {text}", f"Sort these numbers: {text}", f"Put {text} in order.",
                  f"Order these numbers: {text}", f"Sort {text} in ascending order."])
    # Insertion sort: the sorted list after each number; the last one is the answer itself.
    steps = ";".join(" ".join(map(str, sorted(numbers[:i]))) for i in range(1, len(numbers)))
    return " ".join(map(str, numbers)), q, steps, " ".join(map(str, sorted(numbers)))


TASKS = {"sum": sum_, "difference": difference, "product": product, "weekday": weekday, "to_roman": to_roman,
         "from_roman": from_roman, "units": units, "letters": letters, "sort": sort}


def draw(r, task, wanted_held_out):
    """One (key, question, steps, answer) of the wanted side."""
    while True:
        item = TASKS[task](r)
        if held_out(task, item[0]) == wanted_held_out:
            return item


def evaluation_set(per_task, seed):
    """A list of {"task", "question", "answer"} with every key at most once."""
    r = random.Random(seed)
    rows, seen = [], set()
    for task in TASKS:
        n = 0
        while n < per_task:
            key, question, _, answer = draw(r, task, True)
            if (task, key) in seen:
                continue
            seen.add((task, key))
            rows.append({"task": task, "question": question, "answer": answer})
            n += 1
    return rows


if __name__ == "__main__":
    r = random.Random(0)
    for task in TASKS:
        for _ in range(4):
            _, q, steps, answer = draw(r, task, False)
            print(f"{task}: {q} <think>{steps}</think>{answer}")
