/* Errors, strings, and structs from the other side of the ABI. */
#include "nn/nn.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Copies text into a field of `size` bytes, cut where a UTF-8 character begins. */
static void put(char *field, size_t size, const char *text) {
  size_t n = strlen(text);
  if (n >= size) {
    n = size - 1;
    while (n && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
  }
  memcpy(field, text, n);
  field[n] = 0;
}

int32_t nn_fail_at(viv_error *error, int32_t code, const char *source, int line, const char *where,
                   const char *format, ...) {
  if (!error) return code;
  char text[1024];
  va_list args;
  va_start(args, format);
  if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
  va_end(args);
  error->code = code;
  error->line = line;
  put(error->source, sizeof error->source, source);
  put(error->where, sizeof error->where, where ? where : "");
  put(error->message, sizeof error->message, text);
  return code;
}

viv_str nn_str(const char *terminated) {
  viv_str s = {terminated, strlen(terminated)};
  return s;
}

bool nn_is(viv_str a, const char *terminated) {
  size_t n = strlen(terminated);
  return a.len == n && (!n || !memcmp(a.ptr, terminated, n));
}

void nn_read(void *mine, size_t mine_size, const void *theirs, uint32_t theirs_size) {
  size_t n = theirs_size < mine_size ? theirs_size : mine_size;
  memset(mine, 0, mine_size);
  memcpy(mine, theirs, n);
}

void nn_write(void *theirs, uint32_t theirs_size, const void *mine, size_t mine_size) {
  memcpy(theirs, mine, theirs_size < mine_size ? theirs_size : mine_size);
}

const void *nn_interface_of(const nn_interface *list, size_t n, viv_str id) {
  for (size_t i = 0; i < n; i++)
    if (nn_is(id, list[i].id)) return list[i].api;
  return NULL;
}

const viv_plugin *nn_entry(const viv_host *host, const viv_plugin *plugin, viv_error *error) {
  if (host->abi_major >= plugin->abi_major && host->abi_oldest_major <= plugin->abi_major)
    return plugin;
  nn_fail(error, VIV_NEVER, "viv_plugin_entry",
          "the plugin speaks ABI %u.%u, the host %u.%u back to %u.0", (unsigned)plugin->abi_major,
          (unsigned)plugin->abi_minor, (unsigned)host->abi_major, (unsigned)host->abi_minor,
          (unsigned)host->abi_oldest_major);
  return NULL;
}
