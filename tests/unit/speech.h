/* The recording that tests of sound share: 7.9 s of speech at 16 kHz, one channel. The caller frees it. */
#include "media/sound.h"
#include "rt.h"

#define SPEECH "tests/goldens/silero-vad/speech-en-jit/audio.wav"

static viv__sound speech(void) {
  char *bytes = NULL;
  size_t len = 0;
  viv__sound s;
  viv_error e = VIV_ERROR_INIT;
  viv__sound_options o = {0};
  cr_assert_eq(viv__read_file(SPEECH, 1 << 24, &bytes, &len, &e), VIV_OK);
  cr_assert_eq(viv__sound_decode(bytes, len, "speech", &o, &s, &e), VIV_OK, "%s", e.message);
  viv__free(bytes);
  cr_assert_eq(s.rate, 16000);
  cr_assert_eq(s.channels, 1);
  return s;
}
