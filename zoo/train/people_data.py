"""Synthetic people: pictures with exact boxes and COCO's 17 keypoints.

A person is a skeleton in space with proportions and a pose drawn at random, clad in shaded, tapered capsules which are
painted from back to front; what covers a keypoint decides whether it is visible.  Picture i of a seed is always the
same.  Only numpy is needed (Pillow to write JPEG files).

    people_data.py pool DIR --seed 1 --pictures 12000     shards for training: DIR/00000.npy ...
    people_data.py coco DIR --seed 900 --pictures 48      pictures and annotations.json as COCO has them
"""

import argparse
import json
import math
import os

import numpy as np

SIZE = 256  # pixels of a picture's side
NAMES = ("nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
         "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle").split()
SKELETON = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10],
            [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7]]
f32 = np.float32

# Parts of a body; a keypoint is seen where one of the parts around it lies on top.
HEAD, HAIR, NECK, TORSO, ARM, FORE, HAND, THIGH, SHANK, FOOT, SKIRT, OTHER = range(12)


def part(kind, side=0):
    return kind * 2 + side


SEEN_ON = {5: [part(TORSO), part(ARM, 0), part(NECK)], 6: [part(TORSO), part(ARM, 1), part(NECK)],
           7: [part(ARM, 0), part(FORE, 0)], 8: [part(ARM, 1), part(FORE, 1)],
           9: [part(FORE, 0), part(HAND, 0)], 10: [part(FORE, 1), part(HAND, 1)],
           11: [part(TORSO), part(THIGH, 0), part(SKIRT)], 12: [part(TORSO), part(THIGH, 1), part(SKIRT)],
           13: [part(THIGH, 0), part(SHANK, 0), part(SKIRT)], 14: [part(THIGH, 1), part(SHANK, 1), part(SKIRT)],
           15: [part(SHANK, 0), part(FOOT, 0)], 16: [part(SHANK, 1), part(FOOT, 1)]}

# ---- painting ----


def noise(rng, cells, octaves=1, size=SIZE):
    """Smooth noise in about [-1, 1], [size, size]."""
    out, weight = np.zeros((size, size), f32), 1.0
    for _ in range(octaves):
        cells = min(cells, size)
        x = np.linspace(0, cells - 1e-3, size)
        i, t = x.astype(int), (x % 1).astype(f32)
        t = t * t * (3 - 2 * t)
        m = np.zeros((size, cells + 1), f32)
        m[np.arange(size), i] = 1 - t
        m[np.arange(size), i + 1] = t
        out += weight * (m @ rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(f32) @ m.T)
        weight *= 0.5
        cells *= 2
    return out


class Canvas:
    def __init__(self, picture, light):
        self.x = picture  # [S, S, 3], 0..1
        self.who = np.full((SIZE, SIZE), -1, np.int16)   # person, -1 nobody
        self.what = np.zeros((SIZE, SIZE), np.int16)     # part
        self.light = light  # direction towards the light, unit
        self.grid = np.arange(SIZE, dtype=f32) + 0.5

    def window(self, x0, y0, x1, y1):
        a, b = max(0, int(x0) - 1), max(0, int(y0) - 1)
        c, d = min(SIZE, int(x1) + 2), min(SIZE, int(y1) + 2)
        if a >= c or b >= d:
            return None
        return slice(b, d), slice(a, c), self.grid[None, a:c], self.grid[b:d, None]

    def paint(self, ys, xs, alpha, colour, who, what):
        w = self.x[ys, xs]
        w += (colour - w) * alpha[..., None]
        on = alpha > 0.5
        self.who[ys, xs][on] = who
        self.what[ys, xs][on] = what
        return on

    def shade(self, nx, ny):
        nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0, 1))
        l = nx * self.light[0] + ny * self.light[1] + nz * self.light[2]
        return 0.55 + 0.5 * np.maximum(l, -0.2)

    def capsule(self, a, b, ra, rb, cloth, who=-1, what=0):
        """From a to b, radius ra to rb; the painted pixels (mask in its window) or None."""
        r = max(ra, rb)
        win = self.window(min(a[0], b[0]) - r, min(a[1], b[1]) - r, max(a[0], b[0]) + r, max(a[1], b[1]) + r)
        if win is None:
            return None
        ys, xs, gx, gy = win
        dx, dy = float(b[0] - a[0]), float(b[1] - a[1])
        n2 = dx * dx + dy * dy + 1e-6
        px, py = gx - f32(a[0]), gy - f32(a[1])
        t = np.clip((px * f32(dx / n2) + py * f32(dy / n2)), 0, 1)
        qx, qy = px - t * f32(dx), py - t * f32(dy)
        radius = f32(ra) + t * f32(rb - ra)
        dist = np.sqrt(qx * qx + qy * qy)
        alpha = np.clip(radius + f32(0.5) - dist, 0, 1)
        scale = f32(0.97) / np.maximum(np.maximum(radius, dist), f32(0.3))
        shade = self.shade(qx * scale, qy * scale)
        n = math.sqrt(n2)
        side = (qx * f32(-dy / n) + qy * f32(dx / n))
        colour = cloth(t * f32(n), side, self) * shade[..., None]
        return self.paint(ys, xs, alpha, colour, who, what)

    def shadow(self, x, y, rx, ry, depth):
        """A soft dark ellipse on what is there; nobody's pixels change hands."""
        win = self.window(x - 2 * rx, y - 2 * ry, x + 2 * rx, y + 2 * ry)
        if win is None:
            return
        ys, xs, gx, gy = win
        d = ((gx - f32(x)) / f32(rx)) ** 2 + ((gy - f32(y)) / f32(ry)) ** 2
        self.x[ys, xs] *= 1 - f32(depth) * np.exp(-2 * d)[..., None]

    def polygon(self, points, r, cloth, who=-1, what=0, flat=False):
        """A convex polygon, its edges rounded by r."""
        p = hull(points)
        lo, hi = p.min(0) - r, p.max(0) + r
        win = self.window(lo[0], lo[1], hi[0], hi[1])
        if win is None:
            return None
        ys, xs, gx, gy = win
        d = np.full((gy.shape[0], gx.shape[1]), 1e9, f32)   # to the outline
        inside = np.ones(d.shape, bool)
        for i in range(len(p)):
            a, e = p[i], p[(i + 1) % len(p)] - p[i]
            px, py = gx - f32(a[0]), gy - f32(a[1])
            n2 = float(e @ e) + 1e-6
            t = np.clip(px * f32(e[0] / n2) + py * f32(e[1] / n2), 0, 1)
            qx, qy = px - t * f32(e[0]), py - t * f32(e[1])
            d = np.minimum(d, qx * qx + qy * qy)
            inside &= (px * f32(e[1]) - py * f32(e[0])) <= 0
        d = np.sqrt(d)
        d[inside] *= -1
        alpha = np.clip(f32(r) + f32(0.5) - d, 0, 1)
        c, half = (lo + hi) / 2, (hi - lo) / 2
        if flat:
            shade = f32(1)
        else:
            shade = self.shade((gx - f32(c[0])) * f32(0.8 / half[0]), (gy - f32(c[1])) * f32(0.3 / half[1]))[..., None]
        colour = cloth(gy - f32(lo[1]) + 0 * gx, gx - f32(c[0]) + 0 * gy, self) * shade
        return self.paint(ys, xs, alpha, colour, who, what)


def hull(points):
    """Convex hull, in the order that Canvas.polygon takes for inside."""
    p = sorted((float(x), float(y)) for x, y in points)

    def half(seq):
        out = []
        for q in seq:
            while len(out) > 1 and ((out[-1][0] - out[-2][0]) * (q[1] - out[-2][1]) -
                                    (out[-1][1] - out[-2][1]) * (q[0] - out[-2][0])) <= 0:
                out.pop()
            out.append(q)
        return out[:-1]
    return np.array(half(p) + half(p[::-1]))


def colour_of(rng):
    """Clothes: many dull and dark, some saturated."""
    v = rng.uniform(0.05, 1)
    s = rng.choice([0, rng.uniform(0, 0.3), rng.uniform(0.2, 0.95)], p=[0.2, 0.4, 0.4])
    h = rng.uniform(0, 6)
    k = np.abs((h + np.array([0, 4, 2])) % 6 - 3) - 1
    return (v * (1 - s + s * np.clip(k, 0, 1))).astype(f32)


def cloth_of(rng, scale, base=None):
    """cloth(u, v, canvas) -> colours: u along the part, v across, in pixels.  scale: pixels of the wearer's height."""
    a = colour_of(rng) if base is None else base
    kind = rng.choice(["plain", "along", "across", "checks", "speckle", "half"], p=[0.6, 0.06, 0.12, 0.08, 0.08, 0.06])
    b = colour_of(rng)
    if rng.random() < 0.5:
        b = np.clip(a * rng.uniform(0.5, 1.6), 0, 1).astype(f32)
    period = f32(max(2.0, scale * rng.uniform(0.015, 0.06)))
    seed = int(rng.integers(1 << 30))
    fold = f32(rng.uniform(0, 0.07))
    w = f32(rng.uniform(0.4, 1.3) / max(2.0, scale * 0.03))

    def cloth(u, v, canvas):
        folds = 1 + fold * np.sin(u * w + np.sin(v * w * 0.7 + u * w * 0.3) * 0.8)
        if kind == "plain":
            m = None
        elif kind == "along":
            m = (np.floor(v / period) % 2)
        elif kind == "across":
            m = (np.floor(u / period) % 2)
        elif kind == "checks":
            m = ((np.floor(u / period) + np.floor(v / period)) % 2)
        elif kind == "speckle":
            m = (np.random.default_rng(seed).random(u.shape) < 0.3)
        else:
            m = (u > scale * f32(0.12))
        c = a if m is None else a + (b - a) * m[..., None].astype(f32)
        return c * folds[..., None]
    return cloth


def plain(colour):
    return lambda u, v, canvas: colour


# ---- bodies ----


def unit(v):
    return v / (np.linalg.norm(v) + 1e-9)


def turn(axis, angle):
    c, s = math.cos(angle), math.sin(angle)
    if axis == 0:
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == 1:
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def limb(side, flexion, out, bend, bend_to):
    """Directions of the upper and the lower half.  x to the left of the body, y down, z forwards."""
    d = np.array([side * math.sin(out), math.cos(out) * math.cos(flexion), math.cos(out) * math.sin(flexion)])
    b = unit(bend_to - d * (bend_to @ d))
    return d, math.cos(bend) * d + math.sin(bend) * b


def pose_of(rng):
    """Angles of a pose: kind and, per side, (flexion, abduction, bend) of arm and leg; lean of the trunk."""
    kind = rng.choice(["stand", "walk", "run", "sit", "crouch", "gesture", "raise", "free"],
                      p=[0.26, 0.18, 0.06, 0.14, 0.05, 0.16, 0.08, 0.07])
    n, u = rng.normal, rng.uniform
    arms = [[n(0, 0.25), abs(n(0.12, 0.15)), abs(n(0.25, 0.35))] for _ in range(2)]
    legs = [[n(0, 0.1), n(0.06, 0.07), abs(n(0, 0.1))] for _ in range(2)]
    lean = [n(0, 0.08), n(0, 0.06), n(0, 0.12)]  # forwards, sideways, twist
    if kind in ("walk", "run"):
        s = u(0.15, 0.6) * (1.6 if kind == "run" else 1) * rng.choice([-1, 1])
        k = 1.0 if kind == "walk" else 1.9
        legs = [[s + n(0, .08), .04, abs(n(.1 if s > 0 else .35 * k, .25))],
                [-s + n(0, .08), .04, abs(n(.1 if s < 0 else .35 * k, .25))]]
        e = u(0.1, 0.6) if kind == "walk" else u(1.0, 1.9)
        arms = [[-s * u(.5, 1.2), abs(n(.1, .1)), e + n(0, .1)], [s * u(.5, 1.2), abs(n(.1, .1)), e + n(0, .1)]]
        lean[0] += 0.08 if kind == "walk" else 0.25
    elif kind == "sit":
        legs = [[n(1.4, .15), n(.15, .15), n(1.45, .35)] for _ in range(2)]
        arms = [[u(-.1, 1.0), abs(n(.15, .2)), u(.2, 1.8)] for _ in range(2)]
        lean[0] += n(0.05, 0.2)
    elif kind == "crouch":
        legs = [[u(.9, 2.1), n(.2, .15), u(1.2, 2.4)] for _ in range(2)]
        arms = [[u(.1, 1.6), abs(n(.1, .2)), u(0, 1.4)] for _ in range(2)]
        lean[0] += u(0.1, 0.9)
    elif kind == "free":
        legs = [[u(-.5, 1.4), u(-.05, .9), u(0, 1.6)] for _ in range(2)]
        arms = [[u(-.8, 2.9), u(0, 1.5), u(0, 2.2)] for _ in range(2)]
        lean[0] += u(-0.2, 0.9)
    if kind == "gesture" or (kind in ("walk", "sit") and rng.random() < 0.25):
        for i in ([0], [1], [0, 1])[rng.integers(3)]:
            arms[i] = [u(-.3, 1.9), u(0, 1.4), u(.1, 2.3)]
        if rng.random() < 0.3:  # hands on the hips, folded arms
            arms = [[n(-.2, .15), n(.7, .12), n(1.7, .15)] for _ in range(2)]
    elif kind == "raise":
        for i in ([0], [1], [0, 1], [0, 1])[rng.integers(4)]:
            arms[i] = [u(-.1, .4), u(1.4, 2.9), u(0, 1.5)]
    return kind, arms, legs, lean


class Person:
    def __init__(self, rng, scale, index):
        """scale: pixels of the standing height."""
        self.rng, self.scale, self.index = rng, scale, index
        self.shape()
        self.skeleton()
        self.wardrobe()

    def shape(self):
        rng = self.rng
        child = rng.random() < 0.15
        self.fat = f32(np.clip(rng.normal(1.05, 0.18), 0.75, 1.7))
        self.head = 0.066 * rng.normal(1, 0.06) * (1.35 if child else 1)  # half its height
        self.legs = 0.49 * rng.normal(1, 0.04) * (0.92 if child else 1)
        self.arms = 0.325 * rng.normal(1, 0.05) * (0.93 if child else 1)
        self.shoulders = 0.105 * rng.normal(1, 0.09) * math.sqrt(self.fat)
        self.hips = 0.075 * rng.normal(1, 0.1) * math.sqrt(self.fat)
        self.trunk = 0.29 * rng.normal(1, 0.05)

    def skeleton(self):
        rng = self.rng
        self.kind, arms, legs, lean = pose_of(rng)
        spine = turn(0, -lean[0]) @ turn(2, lean[1])
        upper = spine @ turn(1, lean[2])
        up = spine @ np.array([0, -1.0, 0])
        neck = up * self.trunk * 1.0
        j = {}
        nod, look = rng.normal(0.05, 0.25), np.clip(rng.normal(0, 0.45), -1.2, 1.2)
        face = upper @ turn(1, look) @ turn(0, -nod)
        chest = neck - up * 0.025
        for s, side in ((0, 1), (1, -1)):
            shoulder = chest + upper @ np.array([side * self.shoulders, rng.normal(0, 0.006), 0])
            hip = np.array([side * self.hips, 0.0, 0])
            inwards = np.array([-side * rng.uniform(0, 1.2), -0.15, 1.0])
            if arms[s][1] > 1.2:
                inwards = np.array([-side * rng.uniform(0.3, 1.2), -1.0, rng.uniform(0, 0.8)])
            elif arms[s][1] > 0.5 and arms[s][0] < 0.2 and arms[s][2] > 1.5:  # hand on the hip
                inwards = np.array([-side * 1.0, 0.1, 0.5])
            a, b = limb(side, *arms[s], inwards)
            a, b = upper @ a, upper @ b
            elbow = shoulder + a * self.arms * 0.54
            wrist = elbow + b * self.arms * 0.46
            c, d = limb(side, *legs[s], np.array([0, 0.05, -1.0]))
            knee = hip + c * self.legs * 0.5
            ankle = knee + d * self.legs * 0.5
            toe = ankle + unit(np.array([side * 0.2, 0.55, 1.0]) - 0.6 * d * (d[2])) * 0.075
            j.update({5 + s: shoulder, 7 + s: elbow, 9 + s: wrist, 11 + s: hip, 13 + s: knee, 15 + s: ankle,
                      17 + s: toe, 19 + s: wrist + b * 0.045})
        head = neck + up * 0.03 + face @ np.array([0, -1.0, 0.15]) * self.head * 1.15
        h = self.head
        j[0] = head + face @ np.array([0, 0.22 * h, 0.92 * h])
        for s, side in ((0, 1), (1, -1)):
            j[1 + s] = head + face @ np.array([side * 0.30 * h, -0.10 * h, 0.78 * h])
            j[3 + s] = head + face @ np.array([side * 0.72 * h, 0.05 * h, 0.0])
        j[21], j[22], j[23] = head, neck, np.zeros(3)
        yaw = rng.choice([rng.normal(0, 0.6), rng.uniform(-math.pi, math.pi)], p=[0.55, 0.45])
        roll = rng.choice([rng.normal(0, 0.05), rng.normal(0, 0.35), rng.choice([-1, 1]) * rng.normal(1.5, 0.2)],
                          p=[0.85, 0.11, 0.04])
        pitch = rng.normal(0.08, 0.15)
        view = turn(2, roll) @ turn(0, pitch) @ turn(1, yaw)
        # The body's left (+x) is on the right of a picture that sees its front (+z towards the viewer).
        self.p = np.array([view @ j[i] for i in range(24)]) * self.scale
        self.face = view @ face

    def wardrobe(self):
        rng, k = self.rng, self.scale
        tone = rng.uniform(0, 1)
        self.skin = np.clip(np.array([0.98, 0.80, 0.68]) * (1 - tone) + np.array([0.32, 0.2, 0.14]) * tone +
                            rng.normal(0, 0.03, 3), 0.05, 1).astype(f32)
        hair = [[.08, .06, .05], [.2, .13, .08], [.4, .26, .14], [.78, .62, .35], [.55, .2, .1], [.6, .6, .6],
                [.9, .9, .88]][rng.choice(7, p=[.34, .22, .16, .1, .04, .09, .05])]
        self.hair = np.clip(np.array(hair) * rng.uniform(0.7, 1.2), 0, 1).astype(f32)
        self.top = cloth_of(rng, k)
        self.bottom = cloth_of(rng, k)
        if rng.random() < 0.1:
            self.bottom = self.top
        self.shoe = plain(colour_of(rng))
        self.sleeve = rng.choice([0, 0.5, 1, 2], p=[.12, .33, .1, .45])   # none, short, to the elbow, long
        self.trousers = rng.choice([0, 1, 2], p=[.06, .22, .72])           # bare, to the knee, long
        self.skirt = rng.random() < 0.14
        self.hat = rng.random() < 0.12
        self.hatcolour = colour_of(rng)
        self.long = rng.random() < 0.3
        self.bald = rng.random() < 0.07
        self.fringe = rng.uniform(0.25, 0.75)
        self.bag = rng.random() < 0.12
        self.bagcolour = colour_of(rng)
        self.glasses = rng.random() < 0.12
        self.beard = rng.random() < 0.14
        self.gloves = rng.random() < 0.06

    def place(self, x, y, on):
        """Moves the keypoint `on` (23: between the hips) to (x, y)."""
        self.p[:, :2] += np.array([x, y]) - self.p[on, :2]

    def draw(self, c):
        k, f = self.scale, float(self.fat)
        r = math.sqrt(f)
        p, skin = self.p, plain(self.skin)
        limbs = []  # (depth, part, function, arguments)

        def add(z, what, fn, *a):
            limbs.append((z, what, fn, a))
        for s in (0, 1):
            sh, el, wr, hand = p[5 + s], p[7 + s], p[9 + s], p[19 + s]
            hip, kn, an, toe = p[11 + s], p[13 + s], p[15 + s], p[17 + s]
            zs = (sh + el)[2] / 2
            a = (sh[:2], el[:2], 0.034 * k * r, 0.026 * k * r)
            if self.sleeve >= 1:
                add(zs, part(ARM, s), c.capsule, *a[:2], a[2] * 1.15, a[3] * 1.2, self.top)
            else:
                add(zs, part(ARM, s), c.capsule, *a, skin)
                if self.sleeve > 0:
                    m = sh + (el - sh) * 0.55
                    add(zs + 0.01, part(ARM, s), c.capsule, sh[:2], m[:2], a[2] * 1.25, a[2] * 1.15, self.top)
            fore = self.top if self.sleeve == 2 else skin
            g = 1.2 if self.sleeve == 2 else 1
            add((el + wr)[2] / 2, part(FORE, s), c.capsule, el[:2], wr[:2], 0.025 * k * r * g, 0.018 * k * g, fore)
            add((wr + hand)[2] / 2, part(HAND, s), c.capsule, (wr * .7 + hand * .3)[:2], hand[:2], 0.019 * k,
                0.018 * k, plain(self.bagcolour) if self.gloves else skin)
            th = (hip[:2], kn[:2], 0.058 * k * f, 0.036 * k * r)
            sk = (kn[:2], an[:2], 0.035 * k * r, 0.022 * k)
            zt, zk = (hip + kn)[2] / 2, (kn + an)[2] / 2
            g = 1.12
            if self.trousers:
                add(zt, part(THIGH, s), c.capsule, *th[:2], th[2] * g, th[3] * g, self.bottom)
            else:
                add(zt, part(THIGH, s), c.capsule, *th, skin)
            if self.trousers == 2:
                add(zk, part(SHANK, s), c.capsule, *sk[:2], sk[2] * g, sk[3] * 1.35, self.bottom)
            else:
                add(zk, part(SHANK, s), c.capsule, *sk, skin)
            add((an + toe)[2] / 2, part(FOOT, s), c.capsule, an[:2], toe[:2], 0.026 * k, 0.02 * k, self.shoe)
        pelvis, neck = p[23], p[22]
        zt = (pelvis + neck)[2] / 2
        quad = np.stack([p[5][:2], p[6][:2], p[11][:2] + (p[11] - p[12])[:2] * 0.12,
                         p[12][:2] + (p[12] - p[11])[:2] * 0.12])
        add(zt, part(TORSO), c.polygon, quad, 0.042 * k * f, self.top)
        add((neck + p[21])[2] / 2 - 0.01 * k, part(NECK), c.capsule, neck[:2], p[21][:2], 0.03 * k * r, 0.028 * k,
            skin)
        if self.skirt:
            a, b = p[13][:2] * .85 + p[11][:2] * .15, p[14][:2] * .85 + p[12][:2] * .15
            w = unit(a - b) * 0.03 * k
            add(max((p[11] + p[13])[2], (p[12] + p[14])[2]) / 2 + 0.05 * k, part(SKIRT), c.polygon,
                np.stack([p[11][:2], p[12][:2], a + w, b - w]), 0.05 * k * f, self.bottom)
        back = -self.face[:, 2]
        if self.bag:
            m = (pelvis * .35 + neck * .65) + back * 0.09 * k
            add(m[2], part(OTHER), c.capsule, (m - [0, .05 * k, 0])[:2], (m + [0, .06 * k, 0])[:2], .075 * k, .08 * k,
                plain(self.bagcolour))
        if self.long and not self.bald:
            h = p[21] + back * self.head * 0.5 * k
            e = neck + back * 0.05 * k
            add(h[2], part(HAIR), c.capsule, h[:2], e[:2], self.head * 0.8 * k, self.head * 0.7 * k, plain(self.hair))
        add(p[21][2] + 0.02 * k, part(HEAD), self.draw_head, c)
        for _, what, fn, a in sorted(limbs, key=lambda t: t[0]):
            if fn == self.draw_head:
                fn(*a)
            else:
                fn(*a, self.index, what)

    def draw_head(self, c):
        h = self.head * self.scale
        cx, cy = self.p[21][:2]
        win = c.window(cx - h * 1.3, cy - h * 1.3, cx + h * 1.3, cy + h * 1.3)
        if win is None:
            return
        for s in (0, 1):
            if self.p[3 + s][2] > self.p[21][2] - 0.5 * h:
                q = self.p[3 + s][:2]
                c.capsule(q - [0, .1 * h], q + [0, .12 * h], .16 * h, .12 * h, plain(self.skin * 0.9), self.index,
                          part(HEAD))
        ys, xs, gx, gy = win
        # The ellipsoid (0.75, 1, 0.92) h in the head's own frame, seen along z: for each pixel the depth that solves
        # its equation, then the direction in the head's frame.
        inv = np.diag([1 / 0.75, 1.0, 1 / 0.92]) @ self.face.T / h
        a, b, d = inv[:, 0], inv[:, 1], inv[:, 2]
        px, py = (gx - cx).astype(f32), (gy - cy).astype(f32)
        q0 = [px * f32(a[i]) + py * f32(b[i]) for i in range(3)]
        A = float(d @ d)
        B = sum(q0[i] * f32(d[i]) for i in range(3))
        C = sum(q * q for q in q0) - 1
        disc = B * B - A * C
        alpha = np.clip(0.5 + disc / A * h * 0.5 / max(h / 8, 1), 0, 1) if h < 4 else np.clip(0.5 + disc / A / 2, 0, 1)
        z = (-B + np.sqrt(np.maximum(disc, 0))) / A
        n = [q0[i] + z * f32(d[i]) for i in range(3)]  # unit where inside
        x, y, zz = n
        colour = np.empty(x.shape + (3,), f32)
        colour[:] = self.skin
        eye = ((np.abs(np.abs(x) - 0.40) < 0.17) & (np.abs(y + 0.10) < 0.07) & (zz > 0))
        colour[eye] = (0.9, 0.9, 0.88)
        pupil = ((np.abs(x) - 0.40) ** 2 + (y + 0.10) ** 2 < 0.008) & (zz > 0)
        colour[pupil] = (0.1, 0.07, 0.05)
        brow = (np.abs(np.abs(x) - 0.40) < 0.2) & (np.abs(y + 0.26) < 0.045) & (zz > 0)
        colour[brow] = self.hair * 0.8
        nose = (np.abs(x) < 0.04 + 0.14 * np.clip(y + 0.1, 0, 1)) & (y > -0.08) & (y < 0.27) & (zz > 0)
        colour[nose] *= f32(0.84)
        mouth = (np.abs(x) < 0.26) & (np.abs(y - 0.5) < 0.055) & (zz > 0)
        if self.beard:
            colour[(y > 0.28) & (zz > 0.05) & ~((np.abs(x) < 0.2) & (y < 0.34))] = self.hair
        colour[mouth] = self.skin * np.array([0.8, 0.45, 0.45], f32)
        if self.glasses:
            ring = (np.abs(x) - 0.4) ** 2 + (y + 0.1) ** 2
            colour[(ring > 0.04) & (ring < 0.075) & (zz > 0)] = 0.08
        if not self.bald:
            line = -0.35 - 0.4 * (1 - self.fringe)
            hairy = (y < line) | ((zz < 0.25 - 0.5 * np.clip(y, 0, 1)) & (y < (0.9 if self.long else 0.45)))
            colour[hairy] = self.hair
        if self.hat:
            colour[y < -0.38] = self.hatcolour
        scale = f32(0.95 / h)
        colour *= c.shade(px * scale / 0.9, py * scale)[..., None]
        c.paint(ys, xs, alpha.astype(f32), colour, self.index, part(HEAD))

    def keypoints(self, c):
        """[17, 3]: x, y, 2 visible, 1 covered, 0 outside or on the far side of the head."""
        out = np.zeros((17, 3))
        for i in range(17):
            x, y = self.p[i][:2]
            if not (0 <= x < SIZE and 0 <= y < SIZE):
                continue
            who, what = c.who[int(y), int(x)], c.what[int(y), int(x)]
            seen = who == self.index and what in SEEN_ON.get(i, [part(HEAD)])
            if i < 5:
                n = (self.p[i][2] - self.p[21][2]) / (self.head * self.scale)
                if n < -0.15 and i < 3:
                    continue
                seen = seen and n > (-0.25 if i > 2 else 0.0)
            out[i] = x, y, 2 if seen else 1
        return out


# ---- scenes ----


def background(rng):
    kind = rng.choice(["noise", "gradient", "room", "outdoor", "street", "patches"], p=[.16, .1, .24, .22, .16, .12])
    x = np.empty((SIZE, SIZE, 3), f32)
    ramp = np.linspace(0, 1, SIZE, dtype=f32)
    a, b = colour_of(rng), colour_of(rng)
    if rng.random() < 0.4:
        a = a * 0.4 + 0.5
    n1 = noise(rng, int(rng.integers(2, 9)), 4)
    if kind == "noise":
        x[:] = a + (b - a) * np.clip(0.5 + n1, 0, 1)[..., None]
    elif kind == "gradient":
        t = ramp[:, None] if rng.random() < 0.6 else ramp[None, :]
        x[:] = a + (b - a) * np.broadcast_to(t, (SIZE, SIZE))[..., None]
    elif kind == "patches":
        x[:] = a
        for i in range(3):
            x[noise(rng, int(rng.integers(2, 12))) > 0.1] = colour_of(rng)
    else:
        h = int(SIZE * rng.uniform(0.35, 0.9))
        x[:h], x[h:] = a, b
        if kind == "room":
            w = int(rng.integers(8, 60))
            if rng.random() < 0.5:
                x[:h][:, (np.arange(SIZE) // w) % 2 == 0] *= f32(rng.uniform(0.8, 0.98))
            depth = 1 / (np.arange(SIZE - h, dtype=f32) + 12)
            u = (np.arange(SIZE, dtype=f32)[None] - SIZE * rng.uniform(0.2, 0.8)) * depth[:, None] * rng.uniform(2, 8)
            v = depth[:, None] * rng.uniform(40, 200)
            tile = (np.floor(u) + np.floor(v) * (rng.random() < 0.6)) % 2
            x[h:] *= (1 - rng.uniform(0, 0.35) * tile)[..., None].astype(f32)
        elif kind == "outdoor":
            sky = np.array([0.55, 0.72, 0.95], f32) * f32(rng.uniform(0.5, 1.1))
            x[:h] = sky + (1 - sky) * (ramp[:h, None, None] * rng.uniform(0, 1.2)) + 0.1 * n1[:h, :, None]
            green = np.array([[.25, .42, .15], [.5, .42, .3], [.75, .68, .5], [.45, .45, .45], [.9, .92, .95]],
                             f32)[rng.integers(5)]
            x[h:] = green * (1 + 0.5 * n1[h:, :, None])
            hills = h - (20 + 30 * (noise(rng, int(rng.integers(2, 14)), 3)[0] + 0.6)) * rng.uniform(0, 1.6)
            m = (np.arange(SIZE)[:, None] > hills[None]) & (np.arange(SIZE)[:, None] < h)
            x[m] = green * f32(rng.uniform(0.4, 0.9)) * (1 + 0.5 * noise(rng, 30, 2)[m][:, None])
        else:
            at = 0
            while at < SIZE:
                w = int(rng.integers(20, 90))
                top = int(rng.uniform(0, h * 0.8))
                wall = colour_of(rng) * 0.7 + 0.15
                x[top:h, at:at + w] = wall
                sx, sy = rng.integers(7, 22, 2)
                gx = (np.arange(at, min(at + w, SIZE)) - at) % sx < sx * 0.5
                gy = (np.arange(top, h) - top) % sy < sy * 0.6
                x[top:h, at:at + w][gy[:, None] & gx[None]] = wall * f32(rng.uniform(0.3, 1.5))
                at += w
        x *= 1 + rng.uniform(0, 0.12) * n1[..., None]
    if rng.random() < 0.7:
        x *= 1 + rng.uniform(0, 0.15) * noise(rng, int(rng.integers(20, 120)), 2)[..., None]
    return np.clip(x, 0, 1)


def thing(rng, c, big=1.0):
    """One object: furniture, poles, balls, leaves; limbs of nothing."""
    s = SIZE * big * rng.choice([rng.uniform(0.03, 0.1), rng.uniform(0.08, 0.35)], p=[.5, .5])
    x, y = rng.uniform(-0.1, 1.1, 2) * SIZE
    cloth = cloth_of(rng, s * 4)
    kind = rng.integers(5)
    if kind == 0:
        c.polygon(np.array([[x, y], [x + s, y], [x + s, y + s * rng.uniform(.2, 2)], [x, y + s]]), rng.uniform(0, 4),
                  cloth, flat=rng.random() < 0.6)
    elif kind == 1:
        a = rng.uniform(0, math.pi) if rng.random() < 0.5 else math.pi / 2 * rng.integers(2)
        l = s * rng.uniform(0.5, 3)
        r = s * rng.uniform(.05, .3)
        c.capsule((x, y), (x + l * math.cos(a), y + l * math.sin(a)), r, r * rng.uniform(.3, 1.2), cloth)
    elif kind == 2:
        c.capsule((x, y), (x, y + s * rng.uniform(0, .3)), s * .4, s * .4, cloth)
    elif kind == 3:  # a table or a chair: a board on legs
        w, h = s * rng.uniform(.6, 1.6), s * rng.uniform(.4, 1.2)
        r = max(1, s * .04)
        for i in range(4):
            q = x + w * (i % 2) + (i // 2) * w * .2
            c.capsule((q, y), (q, y + h), r, r, cloth)
        c.polygon(np.array([[x, y], [x + w * 1.2, y], [x + w, y + s * .12], [x - w * .1, y + s * .12]]), r, cloth)
    else:
        for _ in range(int(rng.integers(3, 10))):
            q = rng.normal(0, s * .4, 2)
            c.capsule((x, y), (x + q[0], y + q[1]), s * rng.uniform(.03, .15), s * rng.uniform(.03, .2), cloth)


LUMA = np.array([[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
                 [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77],
                 [24, 35, 55, 64, 81, 104, 113, 92], [49, 64, 78, 87, 103, 121, 120, 101],
                 [72, 92, 95, 98, 112, 100, 103, 99]], f32)  # ITU-T T.81, table K.1
DCT = np.array([[(math.sqrt(0.125) if i == 0 else 0.5) * math.cos((2 * j + 1) * i * math.pi / 16) for j in range(8)]
                for i in range(8)], f32)
YCC = np.array([[.299, .587, .114], [-.1687, -.3313, .5], [.5, -.4187, -.0813]], f32)


def jpeg(x, quality):
    """What JPEG's rounding leaves of x (0..1)."""
    s = 5000 / quality if quality < 50 else 200 - 2 * quality
    y = (x * 255 - 128) @ YCC.T
    n = SIZE // 8
    b = y.reshape(n, 8, n, 8, 3).transpose(0, 2, 4, 1, 3)
    q = np.stack([LUMA, LUMA.max(1) * f32(0.9) + 0 * LUMA, LUMA.max(1) * f32(0.9) + 0 * LUMA]) * f32(s / 100)
    q = np.maximum(q, 1)
    b = DCT.T @ (np.round(DCT @ b @ DCT.T / q) * q) @ DCT
    y = b.transpose(0, 3, 1, 4, 2).reshape(SIZE, SIZE, 3)
    return (y @ np.linalg.inv(YCC).T.astype(f32) + 128) / 255


def blur(x, sigma, along=None):
    """Gaussian; along: only over that axis."""
    r = int(3 * sigma + 1)
    k = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    k = (k / k.sum()).astype(f32)
    for axis in ((0, 1) if along is None else (along,)):
        pad = np.pad(x, [(r, r) if i == axis else (0, 0) for i in range(3)], mode="edge")
        x = sum(k[i] * np.take(pad, range(i, i + SIZE), axis) for i in range(2 * r + 1))
    return x


def camera(rng, x):
    """Light, optics, sensor, file."""
    if rng.random() < 0.5:
        x = x * (1 + rng.uniform(0, 0.6) * noise(rng, int(rng.integers(1, 4)))[..., None])
    x = x * (1 + rng.normal(0, 0.08, 3).astype(f32)) * f32(np.exp(rng.normal(0, 0.25)))
    x = np.clip(x, 0, 1.2)
    x = np.clip((x - 0.5) * f32(rng.uniform(0.65, 1.3)) + 0.5 + f32(rng.normal(0, 0.06)), 0, 1)
    x = x ** f32(np.exp(rng.normal(0, 0.2)))
    if x.mean() < 0.2:  # a camera would expose longer
        x = np.clip(x * f32(rng.uniform(0.2, 0.45) / max(x.mean(), 0.02)), 0, 1)
    if rng.random() < 0.05:
        x = np.repeat(x.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.4:
        x = blur(x, rng.uniform(0.4, 1.5))
    if rng.random() < 0.08:
        x = blur(x, rng.uniform(1, 3), int(rng.integers(2)))
    if rng.random() < 0.6:
        x = x + (rng.standard_normal(x.shape, f32)) * f32(rng.uniform(0.005, 0.05))
    if rng.random() < 0.7:
        x = jpeg(np.clip(x, 0, 1), rng.uniform(25, 95))
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)


def picture(seed, index):
    """uint8 [S, S, 3] and its persons: dicts of bbox (x, y, w, h), keypoints [17, 3], area."""
    rng = np.random.default_rng([seed, index])
    light = unit(np.array([rng.normal(0, .6), -abs(rng.normal(.4, .4)), abs(rng.normal(.9, .3))]))
    c = Canvas(background(rng), light)
    for _ in range(int(rng.integers(0, 14))):
        thing(rng, c)
    scene = rng.choice(["none", "close", "one", "some", "many"], p=[.05, .15, .25, .35, .2])
    count = {"none": 0, "close": int(rng.integers(1, 3)), "one": 1, "some": int(rng.integers(2, 5)),
             "many": int(rng.integers(4, 9))}[scene]
    base = {"none": 1, "close": rng.uniform(300, 620), "one": rng.uniform(110, 290), "some": rng.uniform(80, 230),
            "many": rng.uniform(45, 130)}[scene]
    people, horizon, taken = [], SIZE * rng.uniform(0.2, 0.6), []
    for i in range(count):
        scale = base * math.exp(rng.normal(0, 0.15 if scene != "many" else 0.25))
        p = Person(rng, scale, i)
        for _ in range(4):  # near one another sometimes, on top of one another rarely
            if scene == "close":
                x, y = SIZE * rng.uniform(.2, .8), SIZE * rng.uniform(.15, .45)
                p.place(x, y, 21)
            else:
                x, y = SIZE * rng.uniform(.05, .95), SIZE * rng.uniform(.45, .95)
                p.place(x, y - scale * 0.15, 23)
            if all(abs(x - t) > 0.22 * scale for t in taken):
                break
        taken.append(x)
        people.append(p)
    # The lower they stand the nearer they are.
    people.sort(key=lambda p: p.p[:17, 1].max())
    for i, p in enumerate(people):
        p.index = i
        foot = p.p[15:17, :2].max(0)
        if rng.random() < 0.6:
            w = p.scale * rng.uniform(0.12, 0.25)
            c.shadow(foot[0], foot[1] + 0.02 * p.scale, w, w * rng.uniform(0.15, 0.35), rng.uniform(0.3, 0.8))
        if p.kind == "sit" and rng.random() < 0.8:  # something to sit on
            q, w = p.p[23][:2], p.scale * 0.14
            c.polygon(np.array([[q[0] - w, q[1] + w * .3], [q[0] + w, q[1] + w * .3], [q[0] + w, q[1] + w * 2],
                                [q[0] - w, q[1] + w * 2]]), 2, cloth_of(rng, p.scale))
        p.draw(c)
        if rng.random() < 0.12:
            thing(rng, c, 0.7)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        thing(rng, c, rng.uniform(0.4, 1.2))
    found = []
    for p in people:
        ys, xs = np.nonzero(c.who == p.index)
        k = p.keypoints(c)
        if len(ys) < 60 or (k[:, 2] == 2).sum() < 2:
            continue
        x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        found.append({"bbox": [int(x0), int(y0), int(x1 - x0), int(y1 - y0)], "keypoints": k, "area": len(ys)})
    return camera(rng, c.x), found


# ---- files ----

SHARD = 250


def write_pool(folder, seed, pictures, first=0):
    """Shards of SHARD pictures, written whole: a trainer may read while others are being made."""
    os.makedirs(folder, exist_ok=True)
    for s in range(first // SHARD, (first + pictures) // SHARD):
        x = np.empty((SHARD, SIZE, SIZE, 3), np.uint8)
        rows = []  # picture, box, keypoints
        for i in range(SHARD):
            x[i], found = picture(seed, s * SHARD + i)
            rows += [[i] + q["bbox"] + list(q["keypoints"].reshape(-1)) for q in found]
        name = os.path.join(folder, f"{s:05d}")
        np.save(name + ".part.npy", x)
        np.save(name + ".people.npy", np.array(rows, f32).reshape(-1, 56))
        os.replace(name + ".part.npy", name + ".npy")


def write_coco(folder, seed, pictures, quality=88):
    from PIL import Image
    os.makedirs(folder, exist_ok=True)
    images, annotations = [], []
    for i in range(pictures):
        x, found = picture(seed, i)
        name = f"{i:04d}.jpg"
        Image.fromarray(x).save(os.path.join(folder, name), quality=quality)
        images.append({"id": i + 1, "file_name": name, "height": SIZE, "width": SIZE})
        for q in found:
            k = [round(float(v), 1) for v in q["keypoints"].reshape(-1)]
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0,
                                "bbox": q["bbox"], "area": q["area"], "keypoints": k,
                                "num_keypoints": int((q["keypoints"][:, 2] > 0).sum())})
    person = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": SKELETON}
    with open(os.path.join(folder, "annotations.json"), "w") as f:
        json.dump({"images": images, "annotations": annotations, "categories": [person]}, f, separators=(",", ":"))
        f.write("\n")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=["pool", "coco"])
    a.add_argument("folder")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--pictures", type=int, default=12000)
    a.add_argument("--first", type=int, default=0, help="pool: index of the first picture")
    o = a.parse_args()
    if o.what == "pool":
        write_pool(o.folder, o.seed, o.pictures, o.first)
    else:
        write_coco(o.folder, o.seed, o.pictures)


if __name__ == "__main__":
    main()
