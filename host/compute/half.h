/* f16 from and to f32, one value at a time, in plain C. Internal. */
#ifndef VIV_HOST_HALF_H
#define VIV_HOST_HALF_H

#include <stdint.h>
#include <string.h>

static inline float viv__from_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

static inline uint32_t viv__to_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

static inline float viv__from_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16;
  uint32_t rest = h & 0x7fff;
  if (rest >= 0x7c00) /* infinity, or a NaN, which becomes quiet */
    return viv__from_bits(sign | 0x7f800000u | (rest & 0x3ff) << 13 |
                          (rest > 0x7c00 ? 0x400000u : 0));
  if (rest >= 0x400) return viv__from_bits(sign | ((rest << 13) + (112u << 23)));
  float tiny = (float)rest * 0x1p-24f;
  return viv__from_bits(sign | viv__to_bits(tiny));
}

static inline uint16_t viv__to_f16(float f) {
  uint32_t u = viv__to_bits(f);
  uint32_t sign = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x3ff));
  if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and more round to infinity */
  if (u >= 0x38800000u) /* normal: add half a unit, and the last kept bit to break ties to even */
    return (uint16_t)(sign | (u - (112u << 23) + 0xfff + (u >> 13 & 1)) >> 13);
  /* Denormal: the sum's last bits are the result, rounded by the addition itself. */
  float moved = viv__from_bits(u) + 0.5f;
  return (uint16_t)(sign | (viv__to_bits(moved) - viv__to_bits(0.5f)));
}

#endif
