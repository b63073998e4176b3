"""Speech for zoo/models/speech-codec: words spoken by the free synthesisers of Debian, in many voices.

    apt-get install espeak-ng flite festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts festvox-italp16k \\
        festvox-itapc16k festvox-suopuhe-lj festvox-suopuhe-mv festvox-czech-ph festvox-czech-dita festvox-czech-krb \\
        festvox-czech-machac festvox-ca-ona-hts festvox-hi-nsk festvox-mr-nsk festvox-te-nsk festvox-ru \\
        wamerican wfrench wngerman wspanish witalian
    python codec_data.py POOL --seed 1 --minutes 140             voices for training
    python codec_data.py HELD --seed 9 --minutes 6 --held-out    voices that the training never hears

A pool is sound.npy (int16, 16 kHz, one utterance after the other) and spans.json ([start, length, voice]).  espeak-ng
computes its voices from formants; the others are cut or modelled from recordings of people.  Each utterance has its own
speed and pitch, some have another spectral tilt, a little noise or a little room."""

import argparse
import json
import os
import subprocess
import tempfile

import numpy as np
from scipy.io import wavfile
from scipy.signal import fftconvolve, resample_poly

RATE = 16000
LANGUAGES = ("en-us en-gb en-gb-x-rp en-029 fr-fr de es it pt pt-br nl sv nb pl cs sk sl hr hu ro tr fi et lv lt bg ru uk "
             "ka hy fa ar hi bn ta te ml kn mr ne si gu pa cmn yue ja ko vi id ms sq mk sr bs eu ca cy ga gd is la eo kk "
             "az uz ky tt mt af am my ht").split()
HELD_LANGUAGES = "en-gb-scotland da el sw".split()
VARIANTS = ("adam Alex Alicia Andy Annie antonio aunty belinda benjamin boris caleb david Denis Diogo ed edward Gene gustave "
            "Henrique Hugo iven john Lee linda marcelo Marco Mario max Michael michel miguel Mike pablo paul pedro quincy "
            "rob robert steph zac anika f1 f2 f3 f4 m1 m2 m3 m4 m5 m6 m7 grandma grandpa klatt klatt2 klatt3 norbert "
            "sandro shelby travis victor whisper").split()
HELD_VARIANTS = "f5 m8 Andrea iven3".split()
FESTIVAL = ("kal_diphone cmu_us_slt_arctic_hts pc_diphone suo_fi_lj_diphone hy_fi_mv_diphone czech_ph czech_dita czech_krb "
            "czech_machac upc_ca_ona_hts hindi_NSK_diphone marathi_NSK_diphone telugu_NSK_diphone "
            "msu_ru_nsh_clunits msu_ru_nsh_clunits").split()
HELD_FESTIVAL = "ked_diphone lp_diphone".split()
FLITE = "kal16 rms rms slt slt".split()
HELD_FLITE = "awb".split()
DICTIONARIES = "american-english french ngerman spanish italian".split()
SMALL = ("the of and to in a is that it was for on with as be by at this have from or one had not but what all were when we "
         "there can an your which their said if do will each about how up out them then she many some so these would "
         "other into has more her two like him see time could no make than first been its who now people my made over "
         "did down only way find use may water long little very after words called just where most know").split()
RUSSIAN = ("и в не на я быть он с что это по они мы она как то вы так же весь от свой мочь год такой человек время рука "
           "дело жизнь день голова друг вопрос дом слово место лицо сторона нога дверь работа земля конец час город вода "
           "стол ребёнок сила отец женщина машина случай сразу мир совсем остаться вид система глаз большой новый хороший "
           "сейчас думать говорить знать стать хотеть видеть идти стоять жить смотреть сидеть понять иметь делать взять "
           "щука южный объект шёпот цвет чаща юноша ящик эхо жёлтый хлеб царь подъезд сегодня выход").split()


class Words:
    def __init__(self, rng):
        self.rng, self.lists = rng, []
        for name in DICTIONARIES:
            words = open(f"/usr/share/dict/{name}", encoding="utf-8", errors="ignore").read().split()
            self.lists.append([w for w in words if w.isalpha() and 2 < len(w) < 10])

    def pick(self, words):
        return words[self.rng.integers(len(words))]

    def sentence(self, language):
        """language: 0 English, 1.. a dictionary, "ru", or None: digits, which every voice can read."""
        n = int(self.rng.integers(7, 15))
        if language is None:
            return " ".join(str(self.rng.integers(10 ** int(self.rng.integers(1, 6)))) for _ in range(n // 2 + 1)) + "."
        if language == "ru":
            out = [self.pick(RUSSIAN) for _ in range(n)]
        else:
            out = [self.pick(SMALL) if language == 0 and self.rng.random() < 0.5 else self.pick(self.lists[language])
                   for _ in range(n)]
        if self.rng.random() < 0.4:
            out[n // 2] += ","
        return " ".join(out) + ("?" if self.rng.random() < 0.15 else ".")


def say(command, text, folder):
    """The sound that a synthesiser writes to its file, float32 at 16 kHz; None where it fails."""
    source, wav = os.path.join(folder, "text"), os.path.join(folder, "out.wav")
    if os.path.exists(wav):
        os.remove(wav)
    with open(source, "wb") as f:
        f.write(text)
    done = subprocess.run([p.replace("@TEXT", source).replace("@WAV", wav) for p in command],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    if done.returncode or not os.path.exists(wav) or os.path.getsize(wav) < 1000:
        return None
    rate, x = wavfile.read(wav)
    x = x.astype(np.float32) / 32768
    return x, rate


def utterance(rng, words, held):
    """The command, the text and a name for the voice."""
    kind = rng.random()
    if kind < 0.3:
        language = words.pick(HELD_LANGUAGES if held else LANGUAGES)
        variant = words.pick(HELD_VARIANTS if held else VARIANTS)
        latin = rng.random() < 0.6
        text = words.sentence((0 if language.startswith("en") else int(rng.integers(5))) if latin else None)
        return (["espeak-ng", "-v", f"{language}+{variant}", "-p", str(rng.integers(15, 85)), "-s",
                 str(rng.integers(120, 220)), "-f", "@TEXT", "-w", "@WAV"], text.encode(), f"espeak:{language}+{variant}")
    if kind < 0.55:
        voice = words.pick(HELD_FLITE if held else FLITE)
        text = words.sentence(0) + " " + words.sentence(0)
        return (["flite", "-voice", voice, "--setf", f"duration_stretch={rng.uniform(0.8, 1.2):.2f}", "-f", "@TEXT", "-o",
                 "@WAV"], text.encode(), f"flite:{voice}")
    voice = words.pick(HELD_FESTIVAL if held else FESTIVAL)
    language = (0 if voice in ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts") else
                "ru" if "_ru_" in voice else 4 if voice in ("lp_diphone", "pc_diphone") else int(rng.integers(5)))
    text = " ".join(words.sentence(language) for _ in range(3))
    coding = "utf-8" if language == "ru" else "ascii"
    return (["text2wave", "-eval", f"(voice_{voice})", "-o", "@WAV", "@TEXT"], text.encode(coding, "ignore"),
            f"festival:{voice}")


def finish(rng, x, rate, plain):
    """To 16 kHz with another pitch, without long silences at the ends, loud as speech is, with a little of the world."""
    factor = 1.0 if plain or rng.random() < 0.3 else float(np.exp(rng.normal(0, 0.1)))
    x = resample_poly(x, RATE, int(rate * factor))
    loud = np.flatnonzero(np.abs(x) > 0.02 * np.abs(x).max())
    x = x[max(0, loud[0] - 1600):loud[-1] + 2400].astype(np.float32)
    if not plain and rng.random() < 0.4:  # another microphone
        a = rng.uniform(-0.4, 0.4)
        x[1:] += np.float32(a) * x[:-1]
    if not plain and rng.random() < 0.15:  # a room
        t = np.arange(int(RATE * rng.uniform(0.1, 0.3)))
        room = rng.normal(0, 1, len(t)) * np.exp(-6 * t / len(t)) * rng.uniform(0.02, 0.08)
        room[0] = 1
        x = fftconvolve(x, room)[:len(x)].astype(np.float32)
    x *= 10 ** (rng.normal(-24, 4) / 20) / (np.sqrt((x * x).mean()) + 1e-9)
    if not plain and rng.random() < 0.15:
        x += rng.normal(0, 10 ** (rng.uniform(-65, -45) / 20), len(x)).astype(np.float32)
    return x / max(1, np.abs(x).max() / 0.98)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--minutes", type=float, default=140)
    p.add_argument("--held-out", action="store_true")
    a = p.parse_args()
    rng = np.random.default_rng(a.seed)
    words, pieces, spans, at = Words(rng), [], [], 0
    os.makedirs(a.out, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        while at < a.minutes * 60 * RATE:
            command, text, voice = utterance(rng, words, a.held_out)
            got = say(command, text, folder)
            if got is None or len(got[0]) < RATE:
                continue
            x = finish(rng, *got, a.held_out)
            pieces.append((x * 32767).astype(np.int16))
            spans.append([at, len(x), voice])
            at += len(x)
    np.save(os.path.join(a.out, "sound.npy"), np.concatenate(pieces))
    with open(os.path.join(a.out, "spans.json"), "w") as f:
        json.dump(spans, f)
    print(f"{at / RATE / 60:.1f} minutes, {len(spans)} utterances, {len({s[2] for s in spans})} voices")


if __name__ == "__main__":
    main()
