/* Sealed memory that crosses as a descriptor, and where the socket lies. */
#include "wire/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int viv__region_make(const char *name, uint64_t bytes, void **map) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  void *at = MAP_FAILED;
  bool good = bytes <= INT64_MAX && !ftruncate(fd, (off_t)bytes) &&
              !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  if (good && map) {
    at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    good = at != MAP_FAILED;
  }
  if (!good) {
    int failed = errno;
    close(fd);
    errno = failed;
    return -1;
  }
  if (map) *map = at;
  return fd;
}

int viv__region_freeze(int fd) {
  return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL);
}

int32_t viv__region_check(int fd, uint64_t bytes, bool frozen, viv_error *error) {
  int wanted = F_SEAL_SHRINK | F_SEAL_GROW | (frozen ? F_SEAL_WRITE : 0);
  int seals = fcntl(fd, F_GET_SEALS);
  struct stat st;
  if (seals < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
    return VIV_FAIL(error, VIV_BAD_INPUT, "descriptor", "is no memfd");
  if ((seals & wanted) != wanted)
    return VIV_FAIL(error, VIV_BAD_INPUT, "descriptor",
                    "is not sealed: a memfd needs F_SEAL_SHRINK and F_SEAL_GROW%s",
                    frozen ? " and F_SEAL_WRITE" : "");
  if ((uint64_t)st.st_size != bytes)
    return VIV_FAIL(error, VIV_BAD_INPUT, "descriptor", "has %lld bytes, %llu were announced",
                    (long long)st.st_size, (unsigned long long)bytes);
  return VIV_OK;
}

int64_t viv__region_size(int fd, viv_error *error) {
  struct stat st;
  uint64_t bytes = !fstat(fd, &st) && st.st_size > 0 ? (uint64_t)st.st_size : 0;
  return viv__region_check(fd, bytes, false, error) < 0 ? -1 : (int64_t)bytes;
}

char *viv__wire_socket_path(void) {
  const char *named = getenv("VIV_SOCKET"), *folder = getenv("XDG_RUNTIME_DIR");
  if (named && *named) return viv__strdup(named);
  if (folder && *folder == '/') return viv__path_join(folder, "vivarium/vivd.sock");
  return viv__strdup("/run/vivarium/vivd.sock");
}
