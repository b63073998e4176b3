/* Megabytes per second (of processor time) of a tokenizer on a text, and the time that opening takes.
 *
 *   build/bench/bench_tokenizer TOKENIZER.json TEXT     one line: seconds to open and to encode, MB/s, ids
 *   build/bench/bench_tokenizer                         a small file of the tests on made-up words
 *
 * tests/bench/peers/text.py puts the tokenizers library beside it. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/tokenizer.h"

enum { REPEATS = 5, WORDS = 200000 };

/* Of this thread, so that others on the machine are not counted. */
static double cpu_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Words of one to four syllables, the same every time. */
static viv_str made_up(void) {
  static const char *const syllables[] = {"the", "a",  "in", "ter", "na", "tion", "al",
                                          "ly",  "re", "s",  "con", "ed", "ing",  "of"};
  viv__buf text = {0};
  uint32_t random = 1;
  for (int i = 0; i < WORDS; i++) {
    random = random * 1664525 + 1013904223;
    for (uint32_t k = 0; k <= random >> 30; k++)
      viv__buf_str(&text, syllables[(random >> (8 + 4 * k)) % 14]);
    viv__buf_str(&text, i % 12 ? " " : ".\n");
  }
  return (viv_str){text.ptr, text.len};
}

int main(int argc, char **argv) {
  const char *file = argc > 1 ? argv[1] : "tests/data/tokenizer/cl100k.json";
  char *json = NULL, *read = NULL;
  size_t len = 0, text_len = 0, n = 0;
  viv_error error = VIV_ERROR_INIT;
  viv__tokenizer *t = NULL;
  int32_t status = viv__read_file(file, 1 << 30, &json, &len, &error);
  if (status >= 0 && argc > 2) status = viv__read_file(argv[2], 1 << 30, &read, &text_len, &error);
  viv_str text = argc > 2 ? (viv_str){read, text_len} : made_up();
  double open = 1e9, encode = 1e9;
  for (int i = 0; i < REPEATS && status >= 0; i++) {
    double start = cpu_seconds();
    viv__tokenizer_close(t);
    t = NULL;
    status = viv__tokenizer_open((viv_str){json, len}, (viv_str){NULL, 0}, &t, &error);
    if (cpu_seconds() - start < open) open = cpu_seconds() - start;
  }
  for (int i = 0; i < REPEATS && status >= 0; i++) {
    int32_t *ids = NULL;
    double start = cpu_seconds();
    status = viv__tokenizer_encode(t, text, true, true, &ids, &n, &error);
    if (cpu_seconds() - start < encode) encode = cpu_seconds() - start;
    if (status >= 0) viv__free(ids);
  }
  if (status < 0)
    fprintf(stderr, "bench_tokenizer: %s: %s\n", error.where, error.message);
  else
    printf("open %.4f s  encode %.6f s  %.2f MB/s  %zu ids\n", open, encode,
           (double)text.len / encode * 1e-6, n);
  viv__tokenizer_close(t);
  viv__free(json);
  viv__free((void *)(uintptr_t)text.ptr);
  return status < 0;
}
