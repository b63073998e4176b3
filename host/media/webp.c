/* WebP through libwebp; animated files through its demuxer. */
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "media/raster.h"

static int32_t damaged(const viv__raster *r) {
  return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name, "the WebP is cut short or damaged");
}

/* The first frame at its place on the canvas; the rest of the canvas is black. */
static int32_t read_frame(viv__raster *r, WebPDemuxer *demux) {
  WebPIterator frame;
  if (!WebPDemuxGetFrame(demux, 1, &frame)) return damaged(r);
  WebPBitstreamFeatures features;
  bool good =
      WebPGetFeatures(frame.fragment.bytes, frame.fragment.size, &features) == VP8_STATUS_OK &&
      frame.x_offset >= 0 && frame.y_offset >= 0 && features.width <= r->width - frame.x_offset &&
      features.height <= r->height - frame.y_offset;
  int32_t status = good ? viv__raster_begin(r) : damaged(r);
  if (status == VIV_OK) {
    size_t stride = (size_t)r->width * (size_t)r->channels, total = stride * (size_t)r->height;
    size_t skip = stride * (size_t)frame.y_offset + (size_t)frame.x_offset * (size_t)r->channels;
    bool whole = features.width == r->width && features.height == r->height;
    if (!whole) memset(r->raw, 0, total);
    uint8_t *(*decode)(const uint8_t *, size_t, uint8_t *, size_t, int) =
        r->channels == 4 ? WebPDecodeRGBAInto : WebPDecodeRGBInto;
    if (!decode(frame.fragment.bytes, frame.fragment.size, r->raw + skip, total - skip,
                (int)stride))
      status = damaged(r);
  }
  WebPDemuxReleaseIterator(&frame);
  return status;
}

static int32_t read_orientation(WebPDemuxer *demux) {
  WebPChunkIterator chunk;
  int32_t orientation = 1;
  if (!WebPDemuxGetChunk(demux, "EXIF", 1, &chunk)) return 1;
  const uint8_t *b = chunk.chunk.bytes;
  size_t len = chunk.chunk.size, skip = len > 6 && !memcmp(b, "Exif\0", 6) ? 6 : 0;
  orientation = viv__exif_orientation(b + skip, len - skip);
  WebPDemuxReleaseChunkIterator(&chunk);
  return orientation;
}

int32_t viv__decode_webp(viv__raster *r) {
  WebPData data = {r->bytes, r->len};
  r->format = "WebP";
  WebPDemuxer *demux = WebPDemux(&data);
  if (!demux) return damaged(r);
  r->width = WebPDemuxGetI(demux, WEBP_FF_CANVAS_WIDTH);
  r->height = WebPDemuxGetI(demux, WEBP_FF_CANVAS_HEIGHT);
  r->animated = WebPDemuxGetI(demux, WEBP_FF_FRAME_COUNT) > 1;
  r->channels = r->options->channels == 4 ? 4 : 3;
  r->bits = 8;
  r->orientation = read_orientation(demux);
  int32_t status = read_frame(r, demux);
  WebPDemuxDelete(demux);
  return status;
}
