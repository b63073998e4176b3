"""Composed scenes for learning to segment by click: pictures with an exact mask of every thing in them.

A scene is a background (photograph, texture, or several that meet) on which things lie: cut-outs of photographs and
drawings, and shapes filled with what photographs are made of; some carry smaller things.  They cover one another, cast
shadows, and a camera spoils the whole.  Scene i of a seed and a library is always the same.

    click_data.py library LIB --cutouts DIR... --emoji FONT.ttf --photos DIR...
    click_data.py pool LIB POOL --seed 1 --pictures 12000     shards for training: POOL/00000.npy ...
    click_data.py look LIB out.png --seed 1
"""

import argparse
import glob
import io
import math
import os

import cv2
import numpy as np

f32 = np.float32
SIDE = 256
CUT_SIDE = 192      # of a cut-out in the library
PHOTO_SIDE = 1024
HELD = 8            # every eighth cut-out and photograph is kept for the held-out scenes
cv2.setNumThreads(1)

# ---- library ----


def usable(rgba):
    """A cut-out: mostly one piece, with an outline of its own.  The cropped picture, or None."""
    a = rgba[..., 3]
    if min(a.shape) < 48 or (a < 20).mean() < 0.03:
        return None
    ys, xs = np.nonzero(a > 60)
    if len(ys) < 1500:
        return None
    rgba = rgba[ys.min():ys.max() + 1, xs.min():xs.max() + 1]
    h, w = rgba.shape[:2]
    if max(h, w) > 5 * min(h, w):
        return None
    scale = CUT_SIDE / max(h, w)
    if scale < 1:
        p = rgba.astype(f32)
        p[..., :3] *= p[..., 3:] / 255
        p = cv2.resize(p, (max(1, round(w * scale)), max(1, round(h * scale))), interpolation=cv2.INTER_AREA)
        p[..., :3] /= np.maximum(p[..., 3:], 1) / 255
        rgba = np.clip(p + 0.5, 0, 255).astype(np.uint8)
    on = (rgba[..., 3] > 127).astype(np.uint8)
    n, _, stats, _ = cv2.connectedComponentsWithStats(on)
    if n < 2 or not 0.15 < on.mean() < 0.96 or stats[1:, 4].max() < 0.85 * on.sum():
        return None
    # Pages of text and outlines without a body are no things.
    if cv2.erode(on, np.ones((5, 5), np.uint8)).sum() < 0.45 * on.sum():
        return None
    return rgba


def photographic(rgba):
    """Rough: drawings have few colours."""
    c = rgba[rgba[..., 3] > 200][:, :3] >> 3
    return len(np.unique(c.astype(np.int32) @ [1, 32, 1024])) / max(len(c), 1) > 0.06


def emoji_pictures(path):
    """The PNG strikes of a colour font."""
    from fontTools.ttLib import TTFont
    from PIL import Image
    for strike in TTFont(path)["CBDT"].strikeData:
        for name in sorted(strike):
            yield np.array(Image.open(io.BytesIO(strike[name].imageData)).convert("RGBA"))


def read(path):
    from PIL import Image
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(path)
    except OSError:
        return None


def write_library(folder, cutouts, emoji, photos, limit):
    os.makedirs(folder, exist_ok=True)
    found, rng = [], np.random.default_rng(0)

    def take(rgba):
        cut = usable(rgba)
        if cut is not None:
            found.append(cut)
        return cut is not None
    for top in cutouts:
        paths = sorted(p for e in ("png", "PNG") for p in glob.glob(f"{top}/**/*.{e}", recursive=True))
        kept = 0
        for i in rng.permutation(len(paths)):
            image = read(paths[i])
            if image is None or image.mode not in ("RGBA", "LA", "P") or max(image.size) > 4000:
                continue
            kept += take(np.array(image.convert("RGBA")))
            if kept == limit:
                break
        print(top, kept)
    before = len(found)
    for font in emoji:
        for rgba in emoji_pictures(font):
            take(rgba)
    print("emoji", len(found) - before)
    sizes = np.array([c.shape[:2] for c in found], np.int32)
    kind = np.array([photographic(c) for c in found])
    np.savez(f"{folder}/cutouts.npz", sizes=sizes, photographic=kind)
    np.concatenate([c.reshape(-1) for c in found]).tofile(f"{folder}/cutouts.bin")
    print(len(found), "cut-outs,", int(kind.sum()), "photographic")
    pictures = []
    for top in photos:
        for path in sorted(p for e in ("jpg", "jpeg", "webp", "png") for p in glob.glob(f"{top}/**/*.{e}", recursive=True)):
            image = read(path)
            if image is None or min(image.size) < 400:
                continue
            image = image.convert("RGB")
            image.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
            pictures.append(np.array(image))
    np.savez(f"{folder}/photos.npz", *pictures)
    print(len(pictures), "photographs")


class Library:
    def __init__(self, folder, held=False, skip=0):
        index = np.load(f"{folder}/cutouts.npz")
        flat = np.memmap(f"{folder}/cutouts.bin", np.uint8, "r")
        ends = np.cumsum(index["sizes"].astype(np.int64).prod(1) * 4)
        mine = lambda n: [i for i in range(n) if (i % HELD == 0) == held]
        cut = lambda i: flat[ends[i] - int(index["sizes"][i].astype(np.int64).prod()) * 4:ends[i]].reshape(
            *index["sizes"][i], 4)
        ids = [i for i in mine(len(ends)) if i >= skip]
        self.natural = [cut(i) for i in ids if index["photographic"][i]]
        self.drawn = [cut(i) for i in ids if not index["photographic"][i]]
        photos = np.load(f"{folder}/photos.npz")
        names = sorted(photos.files, key=lambda n: int(n.split("_")[1]))
        self.photos = [photos[names[i]] for i in mine(len(names))]


# ---- what surfaces look like ----


def noise(rng, cells, octaves=1, size=SIDE):
    """Smooth noise in about [-1, 1]."""
    out, weight = np.zeros((size, size), f32), 1.0
    for _ in range(octaves):
        cells = min(cells, size)
        small = rng.uniform(-1, 1, (cells + 2, cells + 2)).astype(f32)
        big = cv2.resize(small, (size + size // cells * 2,) * 2, interpolation=cv2.INTER_CUBIC)
        at = size // cells
        out += weight * big[at:at + size, at:at + size]
        weight *= 0.55
        cells *= 2
    return out


def colour(rng):
    v = rng.uniform(0.08, 1)
    s = rng.choice([0, rng.uniform(0, 0.3), rng.uniform(0.2, 0.95)], p=[0.2, 0.4, 0.4])
    k = np.abs((rng.uniform(0, 6) + np.array([0, 4, 2])) % 6 - 3) - 1
    return (v * (1 - s + s * np.clip(k, 0, 1))).astype(f32)


def jitter(rng, x, strength=1.0):
    """Other colours for the same surface, [h, w, 3] in 0..1."""
    if rng.random() < 0.3:
        x = x[..., rng.permutation(3)]
    if rng.random() < 0.15:
        x = np.repeat(x.mean(-1, keepdims=True), 3, -1) * (0.4 + 0.9 * colour(rng))
    x = (x - 0.5) * f32(math.exp(rng.normal(0, 0.25 * strength))) + 0.5 + f32(rng.normal(0, 0.1 * strength))
    return np.clip(x * (1 + rng.normal(0, 0.12 * strength, 3)).astype(f32), 0, 1)


def photo(rng, lib, size=SIDE, closest=0.12):
    """A piece of a photograph, [size, size, 3] in 0..1."""
    p = lib.photos[rng.integers(len(lib.photos))]
    h, w = p.shape[:2]
    n = int(min(h, w) * math.exp(rng.uniform(math.log(closest), 0)))
    y, x = rng.integers(h - n + 1), rng.integers(w - n + 1)
    piece = p[y:y + n, x:x + n]
    piece = cv2.resize(piece, (size, size), interpolation=cv2.INTER_AREA if n > size else cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    if rng.random() < 0.2:
        piece = np.rot90(piece, rng.integers(1, 4))
    return piece.astype(f32) / 255


def inside(rng, lib, size=SIDE):
    """The inner part of a cut-out, enlarged: fur, fruit, metal."""
    for _ in range(4):
        c = lib.natural[rng.integers(len(lib.natural))]
        h, w = c.shape[:2]
        n = int(min(h, w) * rng.uniform(0.25, 0.5))
        y, x = rng.integers(h - n + 1), rng.integers(w - n + 1)
        piece = c[y:y + n, x:x + n]
        if (piece[..., 3] > 200).mean() > 0.97:
            return cv2.resize(piece[..., :3], (size, size), interpolation=cv2.INTER_LINEAR).astype(f32) / 255
    return np.broadcast_to(colour(rng), (size, size, 3)).copy()


def procedural(rng, size=SIDE):
    a, b = colour(rng), colour(rng)
    if rng.random() < 0.5:
        b = np.clip(a * f32(rng.uniform(0.5, 1.6)), 0, 1)
    kind = rng.choice(["plain", "ramp", "cloud", "stripes", "checks", "grain", "dots"],
                      p=[.28, .2, .16, .12, .06, .12, .06])
    g = np.arange(size, dtype=f32) / size
    t = rng.uniform(0, 2 * math.pi)
    u = g[None] * f32(math.cos(t)) + g[:, None] * f32(math.sin(t))
    v = g[:, None] * f32(math.cos(t)) - g[None] * f32(math.sin(t))
    k = rng.uniform(4, 40)
    if kind == "plain":
        m = np.zeros((size, size), f32)
    elif kind == "ramp":
        m = (u - u.min()) / (u.max() - u.min())
    elif kind == "cloud":
        m = np.clip(noise(rng, int(rng.integers(2, 24)), 4, size) * 0.6 + 0.5, 0, 1)
    elif kind == "stripes":
        m = np.clip(np.sin(u * f32(2 * k) + f32(rng.uniform(0, 2)) * noise(rng, 4, 1, size)) * f32(rng.uniform(.6, 4))
                    + 0.5, 0, 1)
    elif kind == "checks":
        m = np.floor(u * f32(k / 2)) + np.floor(v * f32(k / 2))
        m = m % 2
    elif kind == "grain":
        m = np.clip(noise(rng, int(rng.integers(40, 200)), 2, size) + 0.5, 0, 1)
    else:
        m = ((u * f32(k) % 1 - 0.5) ** 2 + (v * f32(k) % 1 - 0.5) ** 2 < rng.uniform(0.02, 0.2)).astype(f32)
    x = a + (b - a) * m[..., None]
    return x * (1 + f32(rng.uniform(0, 0.2)) * noise(rng, int(rng.integers(2, 60)), 2, size)[..., None])


def surface(rng, lib, size=SIDE):
    kind = rng.random()
    if kind < 0.45:
        x = photo(rng, lib, size, 0.06)
    elif kind < 0.6:
        x = inside(rng, lib, size)
    else:
        x = procedural(rng, size)
    return jitter(rng, x)


# ---- shapes ----


def fill(points, size):
    m = np.zeros((size * 2, size * 2), np.uint8)
    cv2.fillPoly(m, [np.round(points * 2 * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.resize(m, (size, size), interpolation=cv2.INTER_AREA)


def shape(rng, size):
    """A silhouette that fills most of size x size, uint8."""
    kind = rng.choice(["blob", "star", "polygon", "ellipse", "box", "limb", "cloud"], p=[.34, .06, .16, .14, .1, .14, .06])
    c, r = size / 2, size * 0.48
    if kind in ("blob", "star"):
        n = 128
        t = np.arange(n) / n * 2 * math.pi
        radius = np.ones(n)
        for k in range(2, 10):
            radius += rng.normal(0, (0.5 if kind == "blob" else 0.25) / k ** 1.1) * np.cos(k * t + rng.uniform(0, 6.3))
        if kind == "star":
            radius += 0.35 * np.cos(rng.integers(3, 9) * t)
        radius = np.maximum(radius, 0.15)
        p = np.stack([np.cos(t), np.sin(t)], 1) * radius[:, None]
    elif kind == "polygon":
        n = int(rng.integers(3, 8))
        t = np.sort(rng.uniform(0, 2 * math.pi, n))
        p = np.stack([np.cos(t), np.sin(t)], 1) * rng.uniform(0.5, 1, (n, 1))
    elif kind == "ellipse":
        t = np.arange(96) / 96 * 2 * math.pi
        e = rng.uniform(2, 4)
        p = np.stack([np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / e), np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / e)], 1)
        p *= [1, rng.uniform(0.3, 1)]
    elif kind == "box":
        p = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.15, 1)]
        p = p + rng.normal(0, 0.06, (4, 2))
    elif kind == "limb":  # a bent tube
        n = 24
        t = np.cumsum(rng.normal(0, 0.22, n))
        mid = np.cumsum(np.stack([np.cos(t), np.sin(t)], 1), 0)
        width = rng.uniform(1, 4) * (1 + 0.3 * np.sin(np.arange(n) * rng.uniform(0.1, 0.6)))[:, None]
        normal = np.stack([-np.sin(t), np.cos(t)], 1) * width
        p = np.concatenate([mid + normal, (mid - normal)[::-1]])
    else:
        m = noise(rng, int(rng.integers(2, 5)), 3, size)
        g = np.linspace(-1, 1, size, dtype=f32)
        m = m - 1.2 * (g[:, None] ** 2 + g[None] ** 2) + 0.5
        n, label, stats, _ = cv2.connectedComponentsWithStats((m > 0).astype(np.uint8))
        if n < 2:
            return np.full((size, size), 255, np.uint8)
        return ((label == 1 + stats[1:, 4].argmax()) * 255).astype(np.uint8)
    p = p - (p.max(0) + p.min(0)) / 2
    return fill(p / np.abs(p).max() * r + c, size)


def compound(rng, lib, size):
    """Several shapes that make one thing, each with its own surface: RGBA and the parts' numbers."""
    x, a = np.zeros((size, size, 3), f32), np.zeros((size, size), f32)
    part = np.zeros((size, size), np.uint8)
    body = None
    for i in range(int(rng.integers(2, 6))):
        n = int(size * (rng.uniform(0.55, 0.8) if i == 0 else rng.uniform(0.2, 0.5)))
        s = shape(rng, n).astype(f32) / 255
        if body is None:
            oy = ox = (size - n) // 2
        else:  # on the rim or in the midst of what is there
            ys, xs = body
            j = rng.integers(len(ys))
            oy, ox = np.clip([ys[j] - n // 2, xs[j] - n // 2], 0, size - n)
        s = cv2.copyMakeBorder(s, oy, size - n - oy, ox, size - n - ox, cv2.BORDER_CONSTANT)
        x += (shaded(rng, surface(rng, lib, size), s) - x) * s[..., None]
        a = np.maximum(a, s)
        part[s > 0.5] = i + 1
        body = np.nonzero(a > 0.5)
    return x, a, part


def shaded(rng, x, alpha):
    """Round: darker towards the rim on one side."""
    if rng.random() < 0.4:
        return x
    n = x.shape[0]
    height = cv2.GaussianBlur(alpha, (0, 0), n * rng.uniform(0.03, 0.12), borderType=cv2.BORDER_CONSTANT)
    t = rng.uniform(0, 2 * math.pi)
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) * f32(math.cos(t)) + cv2.Sobel(height, cv2.CV_32F, 0, 1) * f32(math.sin(t))
    slope /= max(np.abs(slope).max(), 1e-3)
    return x * (1 + f32(rng.uniform(0.1, 0.6)) * slope)[..., None]


# ---- scenes ----


class Scene:
    def __init__(self, x):
        self.x = x                                     # [S, S, 3]
        self.thing = np.zeros((SIDE, SIDE), np.uint8)  # 0: background
        self.part = np.zeros((SIDE, SIDE), np.uint8)
        self.things = self.parts = 0

    def lay(self, rng, colours, alpha, part=None, name=True, shadow=True):
        if shadow and rng.random() < 0.6:
            d = rng.normal(0, 6, 2)
            m = np.float32([[1, 0, d[0]], [0, 1, abs(d[1])]])
            s = cv2.warpAffine(alpha, m, (SIDE, SIDE))
            s = cv2.GaussianBlur(s, (0, 0), rng.uniform(1, 10))
            self.x *= 1 - f32(rng.uniform(0.1, 0.7)) * s[..., None]
        self.x += (colours - self.x) * alpha[..., None]
        on = alpha > 0.5
        self.part[on] = 0
        if name:
            self.things += 1
            self.thing[on] = self.things
        if part is not None:
            for i in np.unique(part[on]):
                if i:
                    self.parts += 1
                    self.part[on & (part == i)] = self.parts


def place(rng, x, a, part, size, at):
    """Turned, leaned and scaled into the scene."""
    h, w = a.shape
    scale = size / max(h, w)
    t = rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(0, 2 * math.pi)
    m = np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]) * scale
    m = m @ np.array([[math.exp(rng.normal(0, 0.12)), rng.normal(0, 0.1)], [0, math.exp(rng.normal(0, 0.12))]])
    if rng.random() < 0.5:
        m[:, 0] *= -1
    m = np.concatenate([m, (np.array(at) - m @ [w / 2, h / 2])[:, None]], 1)
    x = np.concatenate([x * a[..., None], a[..., None]], 2)
    if scale < 0.6:
        k = max(1, round(scale * 1.3 * max(h, w))) / max(h, w)
        small = cv2.resize(x, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
        shrunk = m.copy()
        shrunk[:, :2] /= [small.shape[1] / w, small.shape[0] / h]
        y = cv2.warpAffine(small, shrunk, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    else:
        y = cv2.warpAffine(x, m, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    a = y[..., 3]
    if part is not None:
        part = cv2.warpAffine(part, m, (SIDE, SIDE), flags=cv2.INTER_NEAREST)
    return np.clip(y[..., :3] / np.maximum(a, 1e-3)[..., None], 0, 1.2), a, part


def new_thing(rng, lib):
    """Colours, alpha, parts or None."""
    kind = rng.random()
    if kind < 0.40:
        c = lib.natural[rng.integers(len(lib.natural))]
        x, a, part = c[..., :3].astype(f32) / 255, c[..., 3].astype(f32) / 255, None
        if rng.random() < 0.5:
            x = jitter(rng, x, 0.8)
    elif kind < 0.62:
        c = lib.drawn[rng.integers(len(lib.drawn))]
        x, a, part = c[..., :3].astype(f32) / 255, c[..., 3].astype(f32) / 255, None
        if rng.random() < 0.6:
            x = jitter(rng, x)
        if rng.random() < 0.5:  # painted on something
            n = max(x.shape[:2])
            s = surface(rng, lib, n)[:x.shape[0], :x.shape[1]]
            x = x * (1 - f32(rng.uniform(0.2, 1)) * (1 - s))
    elif kind < 0.84:
        a = shape(rng, 160).astype(f32) / 255
        x, part = shaded(rng, surface(rng, lib, 160), a), None
    else:
        x, a, part = compound(rng, lib, 160)
    if part is None and rng.random() < 0.3:  # it carries something
        h, w = a.shape
        part = np.zeros((h, w), np.uint8)
        x = x.copy()
        ys, xs = np.nonzero(a > 0.5)
        for i in range(int(rng.integers(1, 4))):
            n = int(min(h, w) * rng.uniform(0.15, 0.45))
            j = rng.integers(len(ys))
            oy, ox = np.clip([ys[j] - n // 2, xs[j] - n // 2], 0, [h - n, w - n])
            s = shape(rng, n).astype(f32) / 255
            s *= a[oy:oy + n, ox:ox + n]
            x[oy:oy + n, ox:ox + n] += (surface(rng, lib, n) - x[oy:oy + n, ox:ox + n]) * s[..., None]
            part[oy:oy + n, ox:ox + n][s > 0.5] = i + 1
    if rng.random() < 0.3:
        x = shaded(rng, cv2.resize(x, (max(a.shape),) * 2), cv2.resize(a, (max(a.shape),) * 2))
        x = cv2.resize(x, a.shape[::-1])
    return x, a, part


def backdrop(rng, lib):
    """A scene with nothing on it; where two grounds meet, both are things."""
    kind = rng.random()
    if kind < 0.55:
        return Scene(jitter(rng, photo(rng, lib, SIDE, 0.3), 0.6))
    if kind < 0.7:
        return Scene(surface(rng, lib).copy())
    s = Scene(surface(rng, lib).copy())
    s.things, s.thing[:] = 1, 1
    for _ in range(int(rng.integers(1, 4))):
        t = rng.normal(0, 0.25) + rng.choice([0, 0, 0, math.pi / 2])
        g = np.linspace(-1, 1, SIDE, dtype=f32)
        edge = g[:, None] * f32(math.cos(t)) + g[None] * f32(math.sin(t)) - f32(rng.uniform(-0.6, 0.8))
        if rng.random() < 0.6:
            edge = edge + f32(rng.uniform(0.02, 0.3)) * noise(rng, int(rng.integers(2, 16)), 3)
        a = np.clip(edge * SIDE / 2 + 0.5, 0, 1)
        x = surface(rng, lib)
        if rng.random() < 0.3:
            a = cv2.GaussianBlur(a, (0, 0), rng.uniform(0.5, 4))
        s.lay(rng, x, a, shadow=rng.random() < 0.3)
    return s


def camera(rng, x):
    if rng.random() < 0.5:
        x = x * (1 + f32(rng.uniform(0, 0.5)) * noise(rng, int(rng.integers(1, 4)))[..., None])
    x = x * (1 + rng.normal(0, 0.06, 3).astype(f32)) * f32(math.exp(rng.normal(0, 0.2)))
    x = np.clip((x - 0.5) * f32(rng.uniform(0.7, 1.25)) + 0.5 + f32(rng.normal(0, 0.05)), 0, 1)
    x = x ** f32(math.exp(rng.normal(0, 0.18)))
    if rng.random() < 0.06:
        x = np.repeat(x.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.5:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.3))
    if rng.random() < 0.6:
        x = x + rng.standard_normal(x.shape, f32) * f32(rng.uniform(0.004, 0.05))
    y = np.clip(x * 255 + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.7:
        ok, data = cv2.imencode(".jpg", y, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))])
        y = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return y


def scene(lib, seed, index):
    """uint8 [S, S, 3], and two maps: the number of the thing and of the part at each pixel, 0 none."""
    rng = np.random.default_rng([seed, index])
    s = backdrop(rng, lib)
    count = int(rng.choice([1, 2, 3, 4, 5, 6, 8, 11], p=[.14, .16, .16, .16, .12, .1, .09, .07]))
    largest = rng.uniform(0.45, 1.1)
    sizes = np.sort(np.exp(rng.uniform(math.log(0.12), math.log(largest), count)))[::-1]
    if count <= 2 and rng.random() < 0.7:
        sizes[0] = rng.uniform(0.5, 1.1)
    if rng.random() < 0.4:
        rng.shuffle(sizes)
    same = new_thing(rng, lib) if rng.random() < 0.12 else None  # several of a kind
    for size in sizes:
        x, a, part = same if same and rng.random() < 0.7 else new_thing(rng, lib)
        at = rng.uniform(0.02, 0.98, 2) if size < 0.6 else rng.uniform(0.25, 0.75, 2)
        x, a, part = place(rng, x, a, part, size * SIDE, at * SIDE)
        if rng.random() < 0.12:  # out of focus
            k = rng.uniform(0.7, 2.5)
            x, a = cv2.GaussianBlur(x, (0, 0), k), cv2.GaussianBlur(a, (0, 0), k)
        if rng.random() < 0.5:  # light of its place
            n = noise(rng, 2)
            x = x * (1 + f32(rng.uniform(0, 0.35)) * n[..., None])
        s.lay(rng, x, a, part)
    return camera(rng, s.x), s.thing, s.part


LEAST = 100  # pixels of something worth a click


def targets(thing, part, background=False):
    """Masks (bool) of a scene's things, and of its parts."""
    def those(m):
        out = [m == i for i in range(1, m.max() + 1)]
        return [x for x in out if LEAST <= x.sum() <= 0.95 * x.size]
    things, parts = those(thing), those(part)
    if background and (thing == 0).sum() >= LEAST and thing.any():
        things.append(thing == 0)
    return things, parts


def most_inside(mask):
    """The pixel (x, y) of a mask that is farthest from its rim."""
    d = cv2.distanceTransform(cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 3)
    y, x = np.unravel_index(d[1:-1, 1:-1].argmax(), mask.shape)
    return int(x), int(y)


SHARD = 250


def write_pool(folder, out, seed, pictures, held):
    """Shards of SHARD scenes, written whole: a trainer may read while others are being made."""
    os.makedirs(out, exist_ok=True)
    lib = Library(folder, held)
    for s in range((pictures + SHARD - 1) // SHARD):
        x = np.empty((SHARD, SIDE, SIDE, 5), np.uint8)  # colours, thing, part
        for i in range(SHARD):
            x[i, ..., :3], x[i, ..., 3], x[i, ..., 4] = scene(lib, seed, s * SHARD + i)
        np.save(f"{out}/{s:05d}.part.npy", x)
        os.replace(f"{out}/{s:05d}.part.npy", f"{out}/{s:05d}.npy")


def look(folder, path, seed, held):
    lib = Library(folder, held)
    rng, rows = np.random.default_rng(0), []
    for r in range(4):
        row = []
        for c in range(3):
            x, thing, part = scene(lib, seed, r * 3 + c)
            tint = np.zeros_like(x)
            for m in (thing, part):
                for i in range(1, m.max() + 1):
                    tint[m == i] = rng.integers(0, 256, 3)
            row += [x, tint]
        rows.append(np.concatenate(row, 1))
    cv2.imwrite(path, np.concatenate(rows)[..., ::-1])


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=["library", "pool", "look"])
    a.add_argument("folder")
    a.add_argument("out", nargs="?")
    a.add_argument("--cutouts", nargs="*", default=[])
    a.add_argument("--emoji", nargs="*", default=[])
    a.add_argument("--photos", nargs="*", default=[])
    a.add_argument("--limit", type=int, default=3000, help="cut-outs of one folder")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--pictures", type=int, default=12000)
    a.add_argument("--held-out", action="store_true")
    o = a.parse_args()
    if o.what == "library":
        write_library(o.folder, o.cutouts, o.emoji, o.photos, o.limit)
    elif o.what == "pool":
        write_pool(o.folder, o.out, o.seed, o.pictures, o.held_out)
    else:
        look(o.folder, o.out, o.seed, o.held_out)


if __name__ == "__main__":
    main()
