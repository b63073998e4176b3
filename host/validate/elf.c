/* A small reader of 64-bit little-endian ELF: the dynamic symbols and the needed libraries. */
#include <elf.h>
#include <string.h>

#include "validate/validate.h"

enum { FILE_LIMIT = 1 << 30 };

struct file {
  const char *data;
  size_t len;
};

/* Copies n bytes from offset, or answers false when they are not all in the file. */
static bool get(const struct file *f, uint64_t offset, void *out, size_t n) {
  if (offset > f->len || n > f->len - offset) return false;
  memcpy(out, f->data + offset, n);
  return true;
}

/* The terminated text at index of a string section, or NULL. */
static const char *text_at(const struct file *f, const Elf64_Shdr *strings, uint64_t index) {
  if (strings->sh_offset > f->len || strings->sh_size > f->len - strings->sh_offset ||
      index >= strings->sh_size)
    return NULL;
  const char *s = f->data + strings->sh_offset + index;
  return memchr(s, 0, strings->sh_size - index) ? s : NULL;
}

static bool section(const struct file *f, const Elf64_Ehdr *head, uint64_t i, Elf64_Shdr *out) {
  return i < head->e_shnum && get(f, head->e_shoff + i * sizeof *out, out, sizeof *out);
}

static int32_t walk(const struct file *f, const char *path, void *self,
                    void (*symbol)(void *self, const char *name, bool defined),
                    void (*needed)(void *self, const char *name), viv_error *error) {
  Elf64_Ehdr head;
  if (!get(f, 0, &head, sizeof head) || memcmp(head.e_ident, ELFMAG, SELFMAG) ||
      head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "is no 64-bit little-endian ELF file");
  if (head.e_type != ET_DYN) return VIV_FAIL(error, VIV_BAD_INPUT, path, "is no shared object");
  if (head.e_shentsize != sizeof(Elf64_Shdr) || head.e_shoff > f->len)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "its section headers are broken");
  bool seen = false;
  for (uint64_t i = 0; i < head.e_shnum; i++) {
    Elf64_Shdr s, strings;
    if (!section(f, &head, i, &s))
      return VIV_FAIL(error, VIV_BAD_INPUT, path, "section header %d is cut off", (int)i);
    if (s.sh_type != SHT_DYNSYM && s.sh_type != SHT_DYNAMIC) continue;
    if (!section(f, &head, s.sh_link, &strings))
      return VIV_FAIL(error, VIV_BAD_INPUT, path, "section %d names no string table", (int)i);
    if (s.sh_type == SHT_DYNSYM) {
      seen = true;
      for (uint64_t at = sizeof(Elf64_Sym); at + sizeof(Elf64_Sym) <= s.sh_size;
           at += sizeof(Elf64_Sym)) {
        Elf64_Sym y;
        const char *name;
        if (!get(f, s.sh_offset + at, &y, sizeof y) || !(name = text_at(f, &strings, y.st_name)))
          return VIV_FAIL(error, VIV_BAD_INPUT, path, "a dynamic symbol lies outside the file");
        if (*name && ELF64_ST_TYPE(y.st_info) != STT_SECTION)
          symbol(self, name, y.st_shndx != SHN_UNDEF);
      }
    } else {
      for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= s.sh_size; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn d;
        if (!get(f, s.sh_offset + at, &d, sizeof d))
          return VIV_FAIL(error, VIV_BAD_INPUT, path, "the dynamic section lies outside the file");
        if (d.d_tag == DT_NULL) break;
        if (d.d_tag != DT_NEEDED) continue;
        const char *name = text_at(f, &strings, d.d_un.d_val);
        if (!name)
          return VIV_FAIL(error, VIV_BAD_INPUT, path,
                          "a needed library's name lies outside the file");
        needed(self, name);
      }
    }
  }
  return seen ? VIV_OK : VIV_FAIL(error, VIV_BAD_INPUT, path, "has no dynamic symbols");
}

int32_t viv__elf_read(const char *path, void *self,
                      void (*symbol)(void *self, const char *name, bool defined),
                      void (*needed)(void *self, const char *name), viv_error *error) {
  char *data;
  struct file f = {0};
  int32_t status = viv__read_file(path, FILE_LIMIT, &data, &f.len, error);
  if (status < 0) return status;
  f.data = data;
  status = walk(&f, path, self, symbol, needed, error);
  viv__free(data);
  return status;
}
