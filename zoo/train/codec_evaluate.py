"""How zoo/models/speech-codec sounds, in numbers: the table of its card.

    apt-get install espeak-ng flite festival festvox-kdlpc16k opus-tools codec2
    python codec_evaluate.py VIV MODEL FOLDER [SENTENCES [WAY ...]]      (10, all)

Sentences that no training ever had, spoken by voices that it never heard, go through `VIV encode` and `VIV decode` at 1.5
and 3 kbit/s, through Codec 2 and through Opus at the lowest rate that opusenc writes.  FOLDER keeps the sounds.

    WER     words that PocketSphinx gets wrong, %        STOI  predicted intelligibility, 0..1 (extended STOI beside it)
    mel     distance of the log mels (80 bands), nepers  PESQ  wide band, 1..4.6      SI-SDR  dB"""

import os
import subprocess
import sys

import numpy as np
from pesq import pesq
from pocketsphinx import Decoder
from pystoi import stoi
from scipy.io import wavfile
from scipy.signal import resample_poly

RATE = 16000
SENTENCES = """the old man walked slowly down to the river
she put the letters on the kitchen table
we will meet again tomorrow morning at nine
the children were playing in the garden behind the house
he asked the doctor for some advice about his back
a small boat came into the harbor before the storm
they have lived in this city for many years
please close the window before you leave the room""".split("\n")
VOICES = {"awb": ["flite", "-voice", "awb", "-t", "@TEXT", "-o", "@WAV"],
          "ked": ["sh", "-c", "printf '%s.' '@TEXT' | text2wave -eval '(voice_ked_diphone)' -o '@WAV'"],
          "m8": ["espeak-ng", "-v", "en-gb-scotland+m8", "-s", "140", "-w", "@WAV", "@TEXT"],
          "f5": ["espeak-ng", "-v", "en-gb-scotland+f5", "-s", "140", "-w", "@WAV", "@TEXT"]}


def run(*command):
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read(name):
    rate, x = wavfile.read(name)
    x = x.astype(np.float64) / 32768
    return x if rate == RATE else resample_poly(x, RATE, rate)


def write(name, x, rate=RATE):
    wavfile.write(name, rate, (np.clip(x, -1, 1) * 32767).astype(np.int16))


class Mel:
    def __init__(self, n=1024, bands=80):
        self.n, self.window = n, np.hanning(n + 1)[:-1]
        edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), bands + 2) / 2595) - 1)
        f = np.arange(n // 2 + 1) * RATE / n
        self.bank = np.maximum(0, np.minimum((f[:, None] - edges[:-2]) / np.diff(edges)[:-1],
                                             (edges[2:] - f[:, None]) / np.diff(edges)[1:]))

    def __call__(self, x):
        frames = np.lib.stride_tricks.sliding_window_view(x, self.n)[::self.n // 4]
        return np.log(np.abs(np.fft.rfft(frames * self.window)) @ self.bank * (2 / self.n ** 0.5) + 1e-3)


def aligned(x, y):
    """y moved to where it fits x best, within 60 ms: codecs that delay are not punished for it."""
    n = 1 << (len(x) + len(y)).bit_length()
    c = np.fft.irfft(np.fft.rfft(np.abs(y), n) * np.conj(np.fft.rfft(np.abs(x), n)))
    at = np.arange(-960, 961)
    lag = at[np.argmax(c[at])]
    y = y[lag:] if lag >= 0 else np.concatenate([np.zeros(-lag), y])
    return np.pad(y, (0, max(0, len(x) - len(y))))[:len(x)]


def wrong_words(said, heard):
    """Levenshtein's distance of words."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


class Ear:
    """PocketSphinx with its American English, one quick pass."""

    def __init__(self):
        self.decoder = Decoder(samprate=RATE, loglevel="FATAL", fwdflat=False, bestpath=False, ds=2, maxhmmpf=3000)

    def __call__(self, x):
        x = np.pad(x / (np.abs(x).max() + 1e-9) * 0.7, (4000, 4000))
        self.decoder.start_utt()
        self.decoder.process_raw((x * 32767).astype(np.int16).tobytes(), full_utt=True)
        self.decoder.end_utt()
        return self.decoder.hyp().hypstr.split() if self.decoder.hyp() else []


def ways(viv, model):
    """name -> function(wav, out wav)."""
    def ours(kbps):
        def go(wav, out):
            tokens = out[:-4] + ".vtok"
            run(viv, "encode", model, wav, "-o", tokens, "--bitrate", kbps)
            run(viv, "decode", model, tokens, "-o", out)
        return go

    def opus(wav, out):
        run("opusenc", "--quiet", "--bitrate", 6, "--framesize", 60, wav, out[:-4] + ".opus")
        run("opusdec", "--quiet", "--rate", RATE, out[:-4] + ".opus", out)

    def codec2(mode):
        def go(wav, out):
            low, bits = out[:-4] + ".raw", out[:-4] + ".c2"
            (resample_poly(read(wav), 8000, RATE) * 32767).clip(-32768, 32767).astype("<i2").tofile(low)
            run("c2enc", mode, low, bits)
            run("c2dec", mode, bits, low)
            write(out, resample_poly(np.fromfile(low, "<i2") / 32768, RATE, 8000))
        return go

    return {"original": lambda wav, out: run("cp", wav, out), "ours-1.5": ours(1.5), "ours-3": ours(3),
            "codec2-1.6": codec2(1600), "codec2-3.2": codec2(3200), "opus-6": opus}


def main():
    viv, model, folder = sys.argv[1:4]
    sentences = SENTENCES[:int(sys.argv[4])] if len(sys.argv) > 4 else SENTENCES
    os.makedirs(folder, exist_ok=True)
    ear, mel = Ear(), Mel()
    for way, go in ways(viv, model).items():
        if len(sys.argv) > 5 and way not in sys.argv[5:]:
            continue
        errors = words = 0
        seen = []
        for voice, command in VOICES.items():
            for i, text in enumerate(sentences):
                wav, out = f"{folder}/{voice}-{i:02}.wav", f"{folder}/{voice}-{i:02}-{way}.wav"
                if not os.path.exists(wav):
                    run(*[c.replace("@TEXT", text).replace("@WAV", wav) for c in command])
                    x = read(wav)
                    write(wav, x * 0.06 / np.sqrt((x * x).mean()))
                go(wav, out)
                x, y = read(wav), read(out)
                errors, words = errors + wrong_words(text.split(), ear(y)), words + len(text.split())
                y = aligned(x, y)
                g = (x @ y) / (x @ x)
                seen.append([np.abs(mel(x) - mel(y)).mean(), stoi(x, y, RATE), stoi(x, y, RATE, extended=True),
                             pesq(RATE, x.astype(np.float32), y.astype(np.float32), "wb"),
                             10 * np.log10(((g * x) ** 2).sum() / (((y - g * x) ** 2).sum() + 1e-12))])
        m = np.mean(seen, 0)
        print(f"| {way} | {100 * errors / words:.0f} | {m[1]:.2f} | {m[2]:.2f} | {m[0]:.2f} | {m[3]:.2f} | {m[4]:.1f} |",
              flush=True)


if __name__ == "__main__":
    main()
