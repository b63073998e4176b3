"""The kernels of kernels.cpp as differentiable PyTorch functions, each beside its plain PyTorch reference."""

import ctypes
import math
import os
import subprocess
import tempfile

import torch
import torch.nn.functional as F

_library = None


def library():
    """Compiles kernels.cpp on first use (a few seconds) and loads it."""
    global _library
    if _library is None:
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernels.cpp")
        target = os.path.join(tempfile.mkdtemp(prefix="sambay-kernels-"), "kernels.so")
        subprocess.check_call(["g++", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC",
                               source, "-o", target, "-lm"])
        _library = ctypes.CDLL(target)
    return _library


def _p(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def _l(number):
    return ctypes.c_long(number)


MIXED = False


class MixedLinear(torch.autograd.Function):
    """x W^T with the factors rounded to bfloat16 and sums in float32: half the time on a CPU that has AVX512-BF16."""

    @staticmethod
    def forward(ctx, x, weight):
        xb, wb = x.flatten(0, -2).bfloat16(), weight.bfloat16()
        ctx.save_for_backward(xb, wb)
        ctx.shape = x.shape
        return (xb @ wb.t()).float().view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, dout):
        xb, wb = ctx.saved_tensors
        db = dout.flatten(0, -2).bfloat16()
        return (db @ wb).float().view(ctx.shape), (db.t() @ xb).float()


def linear(x, weight, bias=None):
    """F.linear; in training with MIXED = True the product is a MixedLinear."""
    if not (MIXED and torch.is_grad_enabled()):
        return F.linear(x, weight, bias)
    y = MixedLinear.apply(x, weight)
    return y if bias is None else y + bias


class ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        B, T, E = x.shape
        wt = weight.reshape(E, 4).t().contiguous()
        out = torch.empty_like(x)
        library().conv_silu_forward(_p(x), _p(wt), _p(bias), _p(out), _l(B), _l(T), _l(E))
        ctx.save_for_backward(x, wt, bias)
        return out

    @staticmethod
    def backward(ctx, dout):
        x, wt, bias = ctx.saved_tensors
        B, T, E = x.shape
        dout = dout.contiguous()
        dx, dwt, dbias = torch.empty_like(x), torch.zeros_like(wt), torch.zeros_like(bias)
        library().conv_silu_backward(_p(x), _p(wt), _p(bias), _p(dout), _p(dx), _p(dwt), _p(dbias), _l(B), _l(T), _l(E))
        return dx, dwt.t().reshape(E, 1, 4), dbias


def conv_silu_reference(x, weight, bias):
    return F.silu(F.conv1d(F.pad(x.transpose(1, 2), (weight.shape[-1] - 1, 0)), weight, bias,
                           groups=x.shape[-1]).transpose(1, 2))


class Scan(torch.autograd.Function):
    """bc holds [B | C] in its last 32 columns."""

    @staticmethod
    def forward(ctx, u, dt, A, bc, D):
        B, T, E = u.shape
        y = torch.empty_like(u)
        stride = bc.shape[-1]
        library().scan_forward(_p(u), _p(dt), _p(A), ctypes.c_void_p(bc.data_ptr() + 4 * (stride - 32)), _l(stride),
                               _p(D), _p(y), _l(B), _l(T), _l(E))
        ctx.save_for_backward(u, dt, A, bc, D)
        return y

    @staticmethod
    def backward(ctx, dy):
        u, dt, A, bc, D = ctx.saved_tensors
        B, T, E = u.shape
        stride = bc.shape[-1]
        dy = dy.contiguous()
        du, ddt, dA, dD = torch.empty_like(u), torch.empty_like(dt), torch.zeros_like(A), torch.zeros_like(D)
        dbc = torch.empty(B, T, 32)
        library().scan_backward(_p(u), _p(dt), _p(A), ctypes.c_void_p(bc.data_ptr() + 4 * (stride - 32)), _l(stride),
                                _p(D), _p(dy), _p(du), _p(ddt), _p(dA), _p(dbc), _p(dD), _l(B), _l(T), _l(E))
        return du, ddt, dA, F.pad(dbc, (stride - 32, 0)), dD


def scan_reference(u, dt, A, Bv, Cv, D, state=None):
    """The loop of the formula; also returns the last state."""
    B, T, E = u.shape
    delta = F.softplus(dt)
    state = u.new_zeros(B, E, A.shape[1]) if state is None else state
    y = []
    for t in range(T):
        d = delta[:, t, :, None]
        state = torch.exp(d * A) * state + d * Bv[:, t, None, :] * u[:, t, :, None]
        y.append((state * Cv[:, t, None, :]).sum(-1) + D * u[:, t])
    return torch.stack(y, 1), state


class SiluMul(torch.autograd.Function):
    """silu(gate) * value of two tensors of one shape."""

    @staticmethod
    def forward(ctx, gate, value):
        n = gate.shape[-1]
        rows = gate.numel() // n
        out = torch.empty_like(gate)
        library().silu_mul_forward(_p(gate), _l(n), _p(value), _l(n), _p(out), _l(rows), _l(n))
        ctx.save_for_backward(gate, value)
        return out

    @staticmethod
    def backward(ctx, dout):
        gate, value = ctx.saved_tensors
        n = gate.shape[-1]
        rows = gate.numel() // n
        dout = dout.contiguous()
        dg, dv = torch.empty_like(gate), torch.empty_like(value)
        library().silu_mul_backward(_p(gate), _l(n), _p(value), _l(n), _p(dout), _p(dg), _l(n), _p(dv), _l(n), _l(rows), _l(n))
        return dg, dv


class SwiGLU(torch.autograd.Function):
    """silu(first half) * second half of the last axis."""

    @staticmethod
    def forward(ctx, x):
        n = x.shape[-1] // 2
        rows = x.numel() // (2 * n)
        out = x.new_empty(*x.shape[:-1], n)
        library().silu_mul_forward(_p(x), _l(2 * n), ctypes.c_void_p(x.data_ptr() + 4 * n), _l(2 * n), _p(out), _l(rows), _l(n))
        ctx.save_for_backward(x)
        return out

    @staticmethod
    def backward(ctx, dout):
        x, = ctx.saved_tensors
        n = x.shape[-1] // 2
        rows = x.numel() // (2 * n)
        dout = dout.contiguous()
        dx = torch.empty_like(x)
        library().silu_mul_backward(_p(x), _l(2 * n), ctypes.c_void_p(x.data_ptr() + 4 * n), _l(2 * n), _p(dout),
                                    _p(dx), _l(2 * n), ctypes.c_void_p(dx.data_ptr() + 4 * n), _l(2 * n), _l(rows), _l(n))
        return dx


class DiffAttention(torch.autograd.Function):
    """q is [B, T, >= H*16]; kv is a tensor whose last 2*G*16 columns are [K | V].  When q and kv are the
    same tensor (self-attention), pass it once as q and None as kv."""

    @staticmethod
    def forward(ctx, q, kv, lam, weight, post, window, H, G):
        B, T, qs = q.shape
        source = q if kv is None else kv
        ks = source.shape[-1]
        k = source.data_ptr() + 4 * (ks - 2 * G * 16)
        v = source.data_ptr() + 4 * (ks - G * 16)
        out = q.new_empty(B, T, H * 16)
        library().diff_attn_forward(_p(q), _l(qs), ctypes.c_void_p(k), _l(ks), ctypes.c_void_p(v), _l(ks), _p(lam),
                                    _p(weight), ctypes.c_float(post), _l(window), _p(out), _l(B), _l(T), _l(H), _l(G))
        ctx.save_for_backward(q, source, lam, weight)
        ctx.rest = (kv is None, post, window, H, G)
        return out

    @staticmethod
    def backward(ctx, dout):
        q, source, lam, weight = ctx.saved_tensors
        own, post, window, H, G = ctx.rest
        B, T, qs = q.shape
        ks = source.shape[-1]
        ko, vo = 4 * (ks - 2 * G * 16), 4 * (ks - G * 16)
        dout = dout.contiguous()
        dsource = torch.zeros_like(source)
        dq = dsource if own else torch.empty_like(q)
        dlam, dweight = torch.zeros_like(lam), torch.zeros_like(weight)
        c = ctypes.c_void_p
        library().diff_attn_backward(_p(q), _l(qs), c(source.data_ptr() + ko), _l(ks), c(source.data_ptr() + vo), _l(ks),
                                     _p(lam), _p(weight), ctypes.c_float(post), _l(window), _p(dout), _p(dq), _l(qs),
                                     c(dsource.data_ptr() + ko), _l(ks), c(dsource.data_ptr() + vo), _l(ks),
                                     _p(dlam), _p(dweight), _l(B), _l(T), _l(H), _l(G))
        return dq, None if own else dsource, dlam, dweight, None, None, None, None


def diff_attention_reference(q, k, v, lam, weight, post, window, past=0):
    """q [B,T,H,D], k and v [B,S,G,D] with S = past + T; returns [B,T,H*D]."""
    B, T, H, D = q.shape
    S, G = k.shape[1:3]
    rep = H // G
    v = torch.cat([v[:, :, 0::2], v[:, :, 1::2]], -1)              # [B,S,G/2,2D]
    v = v.repeat_interleave(rep, 2).permute(0, 2, 1, 3)            # [B,H/2,S,2D]
    t = torch.arange(past, past + T)[:, None]
    s = torch.arange(S)[None]
    allowed = (s <= t) & (s > t - window)

    def probabilities(parity):
        a = q[:, :, parity::2].permute(0, 2, 1, 3)
        b = k[:, :, parity::2].repeat_interleave(rep, 2).permute(0, 2, 3, 1)
        return (a @ b / math.sqrt(D)).masked_fill(~allowed, -math.inf).softmax(-1)

    o = (probabilities(0) - lam * probabilities(1)) @ v            # [B,H/2,T,2D]
    o = o * torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + 1e-5) * weight * post
    return o.permute(0, 2, 1, 3).reshape(B, T, H * D)
