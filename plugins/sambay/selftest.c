/* Checks of the plugin's own arithmetic: the layer schedule, lambda, and where states lie. */
#include <math.h>
#include <string.h>

#include "sambay/sambay.h"

#define EXPECT(x)                                                                                  \
  if (!(x)) return nn_fail(error, VIV_BUG, "selftest", "%s does not hold", #x)

static int32_t run(const viv_host *host, viv_error *error) {
  (void)host;
  /* The released model: 9 Mamba, 8 window, 1 full, 7 GMU, 7 cross. */
  int32_t count[5] = {0};
  for (int32_t i = 0; i < 32; i++) count[sambay_schedule(i, 32)]++;
  EXPECT(count[SAMBAY_MAMBA] == 9 && count[SAMBAY_WINDOW] == 8 && count[SAMBAY_FULL] == 1);
  EXPECT(count[SAMBAY_GMU] == 7 && count[SAMBAY_CROSS] == 7);
  EXPECT(sambay_schedule(16, 32) == SAMBAY_MAMBA && sambay_schedule(17, 32) == SAMBAY_FULL);
  EXPECT(sambay_schedule(15, 32) == SAMBAY_WINDOW && sambay_schedule(18, 32) == SAMBAY_GMU);

  EXPECT(fabs(sambay_lambda_init(0) - 0.2) < 1e-12);
  EXPECT(fabs(sambay_lambda_init(17) - 0.7963419520607) < 1e-9);
  float half[4] = {0.5f, 0.5f, 0.5f, 0.5f}, zero[4] = {0};
  struct sambay_layer w = {
      .lambda_q1 = half, .lambda_k1 = half, .lambda_q2 = zero, .lambda_k2 = half};
  EXPECT(fabs((double)sambay_lambda(&w, 4, 0) - (2.718281828459045 - 1 + 0.2)) < 1e-6);

  /* States of neighbouring layers do not overlap, and fill the block to its end. */
  static const struct sambay_config c = {.layers = 8, .half = 4, .d_in = 6, .N = 3, .K = 4};
  float block[3 * 6 * (4 + 3)];
  EXPECT(sambay_state_bytes(&c) == sizeof block);
  for (int32_t i = 0; i <= c.half; i += 2) {
    struct sambay_state s = sambay_state_of(&c, block, i);
    EXPECT(s.oldest - s.tail == 6 * 3 && s.s - s.oldest == 6);
    EXPECT(s.s + 6 * 3 == (i == c.half ? block + sizeof block / sizeof *block
                                       : sambay_state_of(&c, block, i + 2).tail));
  }
  return VIV_OK;
}

const nn_selftest_api sambay_selftest = {
    NN_ABI(nn_selftest_api),
    .run = run,
};
