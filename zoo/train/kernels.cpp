/* CPU kernels for training a small SambaY model: forward and backward passes of
 *
 *   conv_silu    causal depthwise convolution followed by silu
 *   scan         the selective scan of Mamba-1, with 16 states per channel
 *   silu_mul     silu(gate) * value: SwiGLU, the gate of Mamba and the gated memory unit
 *   diff_attn    differential attention with its RMS norm, causal, with an optional window
 *
 * All tensors are float32 and contiguous in their last axis.  Every kernel is parallel over the
 * sequences of the batch, so no two threads write to the same row; gradients of parameters go
 * through one private buffer per thread and are summed at the end.  What the backward pass needs
 * is computed again: at these sizes it lies in the L1 or L2 cache.
 *
 * ops.py compiles this file: g++ -O3 -march=native -ffast-math -fopenmp -shared -fPIC kernels.cpp -o kernels.so
 */
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#include <omp.h>

typedef float v16 __attribute__((vector_size(64)));
typedef float v16u __attribute__((vector_size(64), aligned(4)));
typedef int32_t i16v __attribute__((vector_size(64)));

static const int N = 16;   /* states per channel = one vector register */
static const int D = 16;   /* attention head width = one vector register */

static inline v16 load(const float *p) { return *(const v16u *)p; }
static inline void store(float *p, v16 x) { *(v16u *)p = x; }
static inline v16 splat(float x) { return v16{} + x; }
static inline float sum(v16 x) {
  float s = 0;
  for (int i = 0; i < 16; i++) s += x[i];
  return s;
}

/* exp of sixteen numbers, relative error about 1e-7: 2^n * 2^f with |f| <= 1/2. */
static inline v16 vexp(v16 x) {
  const v16 lo = splat(-87.0f), hi = splat(87.0f);
  x = x < lo ? lo : x;
  x = x > hi ? hi : x;
  v16 y = x * 1.44269504f;
  v16 r = y + 12582912.0f;                       /* 1.5 * 2^23: the low bits are now round(y) */
  i16v n = (i16v)r - 0x4B400000;
  v16 f = y - __builtin_convertvector(n, v16);
  v16 p = splat(1.5403530e-4f);
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  return p * (v16)((n + 127) << 23);
}

static inline v16 vsigmoid(v16 x) { return 1.0f / (1.0f + vexp(-x)); }

/* Both loops are vectorised by the compiler (libmvec).  softplus(x) = max(x,0) + log(1 + exp(-|x|)). */
static void softplus_all(const float *x, float *y, long n) {
  for (long i = 0; i < n; i++) y[i] = (x[i] > 0.0f ? x[i] : 0.0f) + log1pf(expf(-fabsf(x[i])));
}
static void times_sigmoid_all(const float *delta, float *d, long n) {
  for (long i = 0; i < n; i++) d[i] *= 1.0f - expf(-delta[i]);   /* sigmoid(x) = 1 - exp(-softplus(x)) */
}

extern "C" {

/* out[b,t,e] = silu(bias[e] + sum_k w[e,k] x[b,t-(K-1)+k,e]), K = 4; wt is w transposed, [4, E]. */
void conv_silu_forward(const float *x, const float *wt, const float *bias, float *out,
                       long B, long T, long E) {
#pragma omp parallel for
  for (long b = 0; b < B; b++)
    for (long t = 0; t < T; t++)
      for (long e = 0; e < E; e += 16) {
        v16 c = load(bias + e);
        for (long k = 0; k < 4; k++) {
          long s = t - 3 + k;
          if (s >= 0) c += load(wt + k * E + e) * load(x + (b * T + s) * E + e);
        }
        store(out + (b * T + t) * E + e, c * vsigmoid(c));
      }
}

void conv_silu_backward(const float *x, const float *wt, const float *bias, const float *dout,
                        float *dx, float *dwt, float *dbias, long B, long T, long E) {
#pragma omp parallel
  {
    std::vector<float> dw(4 * E, 0.0f), db(E, 0.0f);
#pragma omp for
    for (long b = 0; b < B; b++) {
      memset(dx + b * T * E, 0, sizeof(float) * T * E);
      for (long t = 0; t < T; t++)
        for (long e = 0; e < E; e += 16) {
          v16 c = load(bias + e);
          for (long k = 0; k < 4; k++) {
            long s = t - 3 + k;
            if (s >= 0) c += load(wt + k * E + e) * load(x + (b * T + s) * E + e);
          }
          v16 sg = vsigmoid(c);
          v16 dc = load(dout + (b * T + t) * E + e) * (sg * (1.0f + c * (1.0f - sg)));
          store(&db[e], load(&db[e]) + dc);
          for (long k = 0; k < 4; k++) {
            long s = t - 3 + k;
            if (s < 0) continue;
            float *d = dx + (b * T + s) * E + e;
            store(d, load(d) + dc * load(wt + k * E + e));
            store(&dw[k * E + e], load(&dw[k * E + e]) + dc * load(x + (b * T + s) * E + e));
          }
        }
    }
#pragma omp critical
    {
      for (long i = 0; i < 4 * E; i++) dwt[i] += dw[i];
      for (long i = 0; i < E; i++) dbias[i] += db[i];
    }
  }
}

/* S[n] <- exp(delta A[e,n]) S[n] + delta Bv[n] u ; y = sum_n S[n] Cv[n] + Dp[e] u, delta = softplus(dt).
 *   u, dt, y [B,T,E]; A [E,16] (negative); bc holds Bv at offset 0 and Cv at offset 16 of rows of
 *   bc_stride floats; Dp [E]. */
void scan_forward(const float *u, const float *dt, const float *A, const float *bc, long bc_stride,
                  const float *Dp, float *y, long B, long T, long E) {
#pragma omp parallel for
  for (long b = 0; b < B; b++) {
    std::vector<float> deltas(T * E);
    softplus_all(dt + b * T * E, deltas.data(), T * E);
    for (long e = 0; e < E; e++) {
      v16 a = load(A + e * N), S = {};
      for (long t = 0; t < T; t++) {
        long r = b * T + t;
        float delta = deltas[t * E + e], x = u[r * E + e];
        S = vexp(delta * a) * S + (delta * x) * load(bc + r * bc_stride);
        y[r * E + e] = sum(S * load(bc + r * bc_stride + N)) + Dp[e] * x;
      }
    }
  }
}

void scan_backward(const float *u, const float *dt, const float *A, const float *bc, long bc_stride,
                   const float *Dp, const float *dy, float *du, float *ddt, float *dA, float *dbc,
                   float *dD, long B, long T, long E) {
  /* dbc [B,T,32] */
#pragma omp parallel
  {
    std::vector<float> tA(E * N, 0.0f), tD(E, 0.0f);
    std::vector<float> states((T + 1) * N), decay(T * N), deltas(T * E);
#pragma omp for
    for (long b = 0; b < B; b++) {
      memset(dbc + b * T * 2 * N, 0, sizeof(float) * T * 2 * N);
      softplus_all(dt + b * T * E, deltas.data(), T * E);
      for (long e = 0; e < E; e++) {
        v16 a = load(A + e * N), S = {};
        store(&states[0], S);
        for (long t = 0; t < T; t++) {
          long r = b * T + t;
          float delta = deltas[t * E + e], x = u[r * E + e];
          v16 w = vexp(delta * a);
          S = w * S + (delta * x) * load(bc + r * bc_stride);
          store(&decay[t * N], w);
          store(&states[(t + 1) * N], S);
        }
        v16 dS = {}, da = {};
        float dDe = 0;
        for (long t = T - 1; t >= 0; t--) {
          long r = b * T + t;
          float g = dy[r * E + e], x = u[r * E + e], delta = deltas[t * E + e];
          float *db = dbc + r * 2 * N;
          v16 Bv = load(bc + r * bc_stride), Cv = load(bc + r * bc_stride + N);
          v16 w = load(&decay[t * N]);
          dDe += g * x;
          dS += g * Cv;
          store(db + N, load(db + N) + g * load(&states[(t + 1) * N]));
          store(db, load(db) + (delta * x) * dS);
          float dSB = sum(dS * Bv);
          v16 k = dS * load(&states[t * N]) * w;      /* gradient of delta * A */
          da += delta * k;
          float ddelta = sum(k * a) + x * dSB;
          du[r * E + e] = delta * dSB + Dp[e] * g;
          ddt[r * E + e] = ddelta;
          dS = w * dS;
        }
        store(&tA[e * N], load(&tA[e * N]) + da);
        tD[e] += dDe;
      }
      times_sigmoid_all(deltas.data(), ddt + b * T * E, T * E);
    }
#pragma omp critical
    {
      for (long i = 0; i < E * N; i++) dA[i] += tA[i];
      for (long i = 0; i < E; i++) dD[i] += tD[i];
    }
  }
}

/* out = silu(g) * v, row by row; the strides let g and v be the two halves of one tensor. */
void silu_mul_forward(const float *g, long gs, const float *v, long vs, float *out, long rows, long F) {
#pragma omp parallel for
  for (long r = 0; r < rows; r++)
    for (long i = 0; i < F; i += 16) {
      v16 x = load(g + r * gs + i);
      store(out + r * F + i, x * vsigmoid(x) * load(v + r * vs + i));
    }
}

void silu_mul_backward(const float *g, long gs, const float *v, long vs, const float *dout,
                       float *dg, long dgs, float *dv, long dvs, long rows, long F) {
#pragma omp parallel for
  for (long r = 0; r < rows; r++)
    for (long i = 0; i < F; i += 16) {
      v16 x = load(g + r * gs + i), y = load(v + r * vs + i), d = load(dout + r * F + i);
      v16 s = vsigmoid(x);
      store(dv + r * dvs + i, d * x * s);
      store(dg + r * dgs + i, d * y * (s * (1.0f + x * (1.0f - s))));
    }
}

/* Differential attention of head pairs, with D = 16:
 *   A = softmax(q_2j . k_2g / 4) - lambda softmax(q_2j+1 . k_2g+1 / 4), o = A . [v_2g | v_2g+1],
 *   out = o / sqrt(mean(o^2) + 1e-5) * w * post           (32 numbers per pair)
 * q rows have H*16 floats at stride qs, k and v rows G*16 floats at stride ks and vs.  A token sees
 * itself and the window - 1 tokens before it. */
static inline void attn_row(const float *q, const float *kt, long Tp, long lo, long t, float *p) {
  /* p[s] = softmax over s in [lo, t] of q . k[s] / 4; kt is k transposed, [16, Tp]. */
  long a = lo & ~15L;
  float mx = -1e30f;
  v16 m = splat(-1e30f);
  for (long s = a; s <= t; s += 16) {
    v16 c = {};
    for (int d = 0; d < D; d++) c += q[d] * load(kt + d * Tp + s);
    c = c * 0.25f;
    store(p + s, c);
  }
  for (long s = a; s < lo; s++) p[s] = -1e30f;
  for (long s = t + 1; s < ((t + 16) & ~15L); s++) p[s] = -1e30f;
  for (long s = a; s <= t; s += 16) {
    v16 c = load(p + s);
    m = c > m ? c : m;
  }
  for (int i = 0; i < 16; i++) mx = m[i] > mx ? m[i] : mx;
  v16 z = {};
  for (long s = a; s <= t; s += 16) {
    v16 c = load(p + s), keep = c;
    c = vexp(c - mx);
    c = keep < splat(-1e29f) ? v16{} : c;
    store(p + s, c);
    z += c;
  }
  float inv = 1.0f / sum(z);
  for (long s = a; s <= t; s += 16) store(p + s, load(p + s) * inv);
}

static void transpose16(const float *x, long stride, long T, long Tp, float *out) {
  for (int d = 0; d < 16; d++)
    for (long s = 0; s < T; s++) out[d * Tp + s] = x[s * stride + d];
}

void diff_attn_forward(const float *q, long qs, const float *k, long ks, const float *v, long vs,
                       const float *lambda, const float *w, float post, long window, float *out,
                       long B, long T, long H, long G) {
  long Tp = (T + 15) & ~15L, rep = H / G;
  float lam = lambda[0];
#pragma omp parallel
  {
    std::vector<float> kt1(16 * Tp, 0.0f), kt2(16 * Tp, 0.0f), p1(Tp), p2(Tp);
#pragma omp for
    for (long b = 0; b < B; b++)
      for (long j = 0; j < H / 2; j++) {
        long g = j / rep;
        const float *kb = k + b * T * ks + 2 * g * D, *vb = v + b * T * vs + 2 * g * D;
        if (j % rep == 0) {
          transpose16(kb, ks, T, Tp, kt1.data());
          transpose16(kb + D, ks, T, Tp, kt2.data());
        }
        for (long t = 0; t < T; t++) {
          long lo = t - window + 1 > 0 ? t - window + 1 : 0;
          const float *qr = q + (b * T + t) * qs + 2 * j * D;
          attn_row(qr, kt1.data(), Tp, lo, t, p1.data());
          attn_row(qr + D, kt2.data(), Tp, lo, t, p2.data());
          v16 o1 = {}, o2 = {};
          for (long s = lo; s <= t; s++) {
            float a = p1[s] - lam * p2[s];
            o1 += a * load(vb + s * vs);
            o2 += a * load(vb + s * vs + D);
          }
          float n = post / sqrtf(sum(o1 * o1 + o2 * o2) / (2 * D) + 1e-5f);
          float *dst = out + (b * T + t) * H * D + j * 2 * D;
          store(dst, n * o1 * load(w));
          store(dst + D, n * o2 * load(w + D));
        }
      }
  }
}

void diff_attn_backward(const float *q, long qs, const float *k, long ks, const float *v, long vs,
                        const float *lambda, const float *w, float post, long window,
                        const float *dout, float *dq, long dqs, float *dk, long dks, float *dv, long dvs,
                        float *dlambda, float *dw, long B, long T, long H, long G) {
  /* dk and dv must be zero on entry. */
  long Tp = (T + 15) & ~15L, rep = H / G;
  float lam = lambda[0];
#pragma omp parallel
  {
    std::vector<float> kt1(16 * Tp, 0.0f), kt2(16 * Tp, 0.0f), vt1(16 * Tp, 0.0f), vt2(16 * Tp, 0.0f);
    std::vector<float> p1(Tp), p2(Tp), da(Tp);
    v16 tw1 = {}, tw2 = {};
    double tl = 0;
#pragma omp for
    for (long b = 0; b < B; b++)
      for (long j = 0; j < H / 2; j++) {
        long g = j / rep;
        const float *kb = k + b * T * ks + 2 * g * D, *vb = v + b * T * vs + 2 * g * D;
        float *dkb = dk + b * T * dks + 2 * g * D, *dvb = dv + b * T * dvs + 2 * g * D;
        if (j % rep == 0) {
          transpose16(kb, ks, T, Tp, kt1.data());
          transpose16(kb + D, ks, T, Tp, kt2.data());
          transpose16(vb, vs, T, Tp, vt1.data());
          transpose16(vb + D, vs, T, Tp, vt2.data());
        }
        for (long t = 0; t < T; t++) {
          long lo = t - window + 1 > 0 ? t - window + 1 : 0, al = lo & ~15L;
          const float *qr = q + (b * T + t) * qs + 2 * j * D;
          attn_row(qr, kt1.data(), Tp, lo, t, p1.data());
          attn_row(qr + D, kt2.data(), Tp, lo, t, p2.data());
          v16 o1 = {}, o2 = {};
          for (long s = lo; s <= t; s++) {
            float a = p1[s] - lam * p2[s];
            o1 += a * load(vb + s * vs);
            o2 += a * load(vb + s * vs + D);
          }
          /* through the RMS norm */
          const float *dr = dout + (b * T + t) * H * D + j * 2 * D;
          float inv = 1.0f / sqrtf(sum(o1 * o1 + o2 * o2) / (2 * D) + 1e-5f);
          v16 g1 = post * load(dr), g2 = post * load(dr + D);
          tw1 += inv * g1 * o1;
          tw2 += inv * g2 * o2;
          g1 *= load(w);
          g2 *= load(w + D);
          float dot = sum(g1 * o1 + g2 * o2) * inv * inv / (2 * D);
          v16 d1 = inv * (g1 - dot * o1), d2 = inv * (g2 - dot * o2);
          /* through A . V */
          v16 s1 = {}, s2 = {};
          for (long s = al; s <= t; s += 16) {
            v16 c = {};
            for (int d = 0; d < D; d++)
              c += d1[d] * load(&vt1[d * Tp + s]) + d2[d] * load(&vt2[d * Tp + s]);
            store(&da[s], c);
            s1 += c * load(&p1[s]);
            s2 += c * load(&p2[s]);
          }
          float m1 = sum(s1), m2 = sum(s2);
          tl -= m2;
          /* through the two softmaxes */
          v16 q1 = load(qr), q2 = load(qr + D), dq1 = {}, dq2 = {};
          for (long s = lo; s <= t; s++) {
            float a = p1[s] - lam * p2[s];
            float e1 = p1[s] * (da[s] - m1) * 0.25f, e2 = -lam * p2[s] * (da[s] - m2) * 0.25f;
            float *pv = dvb + s * dvs, *pk = dkb + s * dks;
            store(pv, load(pv) + a * d1);
            store(pv + D, load(pv + D) + a * d2);
            dq1 += e1 * load(kb + s * ks);
            dq2 += e2 * load(kb + s * ks + D);
            store(pk, load(pk) + e1 * q1);
            store(pk + D, load(pk + D) + e2 * q2);
          }
          float *pq = dq + (b * T + t) * dqs + 2 * j * D;
          store(pq, dq1);
          store(pq + D, dq2);
        }
      }
#pragma omp critical
    {
      store(dw, load(dw) + tw1);
      store(dw + D, load(dw + D) + tw2);
      dlambda[0] += (float)tl;
    }
  }
}

}  /* extern "C" */
