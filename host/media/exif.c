/* EXIF: of all that it may hold only the orientation matters to a model. */
#include "media/raster.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3 };

static uint32_t read_at(const uint8_t *p, int bytes, bool big) {
  uint32_t v = 0;
  for (int i = 0; i < bytes; i++) v |= (uint32_t)p[i] << 8 * (big ? bytes - 1 - i : i);
  return v;
}

/* A damaged block is no reason to refuse a picture that decodes: it then has no orientation. */
int32_t viv__exif_orientation(const uint8_t *tiff, size_t len) {
  if (len < 8 || (tiff[0] != 'I' && tiff[0] != 'M') || tiff[1] != tiff[0]) return 1;
  bool big = tiff[0] == 'M';
  size_t at = read_at(tiff + 4, 4, big);
  if (read_at(tiff + 2, 2, big) != 42 || at > len - 2) return 1;
  size_t n = read_at(tiff + at, 2, big);
  for (size_t i = 0; i < n && at + 2 + 12 * (i + 1) <= len; i++) {
    const uint8_t *entry = tiff + at + 2 + 12 * i;
    if (read_at(entry, 2, big) != TAG_ORIENTATION) continue;
    uint32_t value = read_at(entry + 8, 2, big);
    bool good = read_at(entry + 2, 2, big) == TYPE_SHORT && value >= 1 && value <= 8;
    return good ? (int32_t)value : 1;
  }
  return 1;
}
