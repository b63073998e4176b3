/* The configuration file, and who may do what. */
#include "daemon/daemon.h"

#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

static const char default_path[] = "/etc/vivarium/vivd.json";

enum { CONFIG_LIMIT = 1 << 20 };

/* "any", "self", "user:NAME", "group:NAME"; names may be numbers. */
static int32_t read_principal(const char *text, principal *p, const char *where, viv_error *error) {
  if (!strcmp(text, "any")) {
    p->any = true;
    return VIV_OK;
  }
  if (!strcmp(text, "self")) {
    p->self = true;
    return VIV_OK;
  }
  p->group = !strncmp(text, "group:", 6);
  if (!p->group && strncmp(text, "user:", 5))
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"%s\" is none of any, self, user:NAME, group:NAME", text);
  const char *name = strchr(text, ':') + 1;
  char *end;
  unsigned long number = strtoul(name, &end, 10);
  p->id = (uint32_t)number;
  if (*name && !*end) return VIV_OK;
  struct group *g = p->group ? getgrnam(name) : NULL;
  struct passwd *u = p->group ? NULL : getpwnam(name);
  if (!g && !u) return VIV_FAIL(error, VIV_BAD_INPUT, where, "there is no %s", text);
  p->id = g ? g->gr_gid : u->pw_uid;
  return VIV_OK;
}

static int32_t read_policy(config *c, const viv_json *policy, const char *path, viv_error *error) {
  static const struct {
    const char *name;
    int grant;
  } classes[] = {{"infer", GRANT_INFER}, {"inspect", GRANT_INSPECT}, {"control", GRANT_CONTROL}};
  free(c->principals);
  c->principals = NULL;
  c->n_principals = 0;
  for (int64_t k = 0; k < viv__json_count(policy); k++) {
    const viv_json *list = viv__json_item(policy, k);
    int grant = 0;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
      if (viv__str_eq(viv__json_key(list), classes[i].name)) grant = classes[i].grant;
    if (!grant || viv__json_type(list) != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, path,
                      "policy: infer, inspect and control are lists of who may; \"%.*s\" is not",
                      (int)viv__json_key(list).len, viv__json_key(list).ptr);
    for (int64_t i = 0; i < viv__json_count(list); i++) {
      viv_str who = viv__json_string(viv__json_item(list, i));
      char text[256];
      snprintf(text, sizeof text, "%.*s", (int)who.len, who.len ? who.ptr : "");
      principal *grown = realloc(c->principals, (c->n_principals + 1) * sizeof *grown);
      if (!grown) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
      c->principals = grown;
      principal *p = &c->principals[c->n_principals++];
      *p = (principal){.grants = grant};
      int32_t status = read_principal(text, p, path, error);
      if (status < 0) return status;
    }
  }
  return VIV_OK;
}

static int32_t read_text(const viv_json *value, char **out, const char *path, viv_error *error) {
  viv_str s = viv__json_string(value);
  viv__free(*out);
  *out = viv__strndup(s.len ? s.ptr : "", s.len);
  if (!*out) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  if (!s.len || s.ptr[0] != '/')
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "%.*s must be an absolute path",
                    (int)viv__json_key(value).len, viv__json_key(value).ptr);
  return VIV_OK;
}

static int32_t read_member(config *c, const viv_json *value, const char *path, viv_error *error) {
  const struct {
    const char *key;
    int64_t *number;
    int64_t most;
    char **text;
  } keys[] = {{"socket", NULL, 0, &c->socket},
              {"plugin_path", NULL, 0, &c->plugin_path},
              {"state_dir", NULL, 0, &c->state_dir},
              {"keep_alive_s", &c->keep_alive_s, 1 << 30, NULL},
              {"max_queue", &c->max_queue, 1 << 20, NULL},
              {"max_clients", &c->max_clients, 1 << 16, NULL},
              {"threads", &c->threads, 1024, NULL},
              {"cancel_grace_ms", &c->cancel_grace_ms, 1 << 24, NULL},
              {"start_limit_s", &c->start_limit_s, 1 << 20, NULL},
              {"prompt_cache_bytes", (int64_t *)&c->prompt_bytes, INT64_C(1) << 50, NULL},
              {"queue_bytes", (int64_t *)&c->queue_bytes, INT64_C(1) << 50, NULL},
              {"memory_budget", (int64_t *)&c->budget, INT64_C(1) << 50, NULL}};
  viv_str key = viv__json_key(value);
  if (viv__str_eq(key, "policy")) return read_policy(c, value, path, error);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    if (!viv__str_eq(key, keys[i].key)) continue;
    if (keys[i].text) return read_text(value, keys[i].text, path, error);
    double v = viv__json_number(value);
    if (viv__json_type(value) != VIV_JSON_NUMBER || !(v >= 0 && v <= (double)keys[i].most))
      return VIV_FAIL(error, VIV_BAD_INPUT, path, "%s must be a number from 0 to %lld", keys[i].key,
                      (long long)keys[i].most);
    *keys[i].number = (int64_t)v;
    return VIV_OK;
  }
  return VIV_FAIL(error, VIV_BAD_INPUT, path, "there is no setting \"%.*s\"", (int)key.len,
                  key.ptr);
}

static int32_t set_defaults(config *c, viv_error *error) {
  struct sysinfo si;
  uint64_t memory = sysinfo(&si) ? (uint64_t)4 << 30 : (uint64_t)si.totalram * si.mem_unit;
  *c = (config){.keep_alive_s = 300,
                .max_queue = 512,
                .max_clients = 4096,
                .cancel_grace_ms = 5000,
                .start_limit_s = 300,
                .queue_bytes = (uint64_t)256 << 20,
                .prompt_bytes = (uint64_t)512 << 20,
                .budget = memory / 5 * 4};
  c->socket = viv__wire_socket_path();
  c->principals = calloc(1, sizeof *c->principals);
  if (!c->socket || !c->principals) return VIV_FAIL(error, VIV_NOT_NOW, "vivd", "no memory");
  c->principals[0] = (principal){.any = true, .grants = GRANT_INFER | GRANT_INSPECT};
  c->n_principals = 1;
  return VIV_OK;
}

int32_t config_read(config *c, const char *path, viv_error *error) {
  int32_t status = set_defaults(c, error);
  if (status < 0 || (!path && access(default_path, F_OK))) return status;
  if (!path) path = default_path;
  char *text = NULL;
  size_t len = 0;
  viv_json *json = NULL;
  status = viv__read_file(path, CONFIG_LIMIT, &text, &len, error);
  if (status >= 0) status = viv__json_parse(text, len, path, &json, error);
  if (status >= 0 && viv__json_type(json) != VIV_JSON_OBJECT)
    status = VIV_FAIL(error, VIV_BAD_INPUT, path, "must be a JSON object");
  for (int64_t i = 0; status >= 0 && i < viv__json_count(json); i++)
    status = read_member(c, viv__json_item(json, i), path, error);
  viv__json_free(json);
  viv__free(text);
  return status;
}

void config_free(config *c) {
  viv__free(c->socket);
  viv__free(c->plugin_path);
  viv__free(c->state_dir);
  free(c->principals);
  *c = (config){0};
}

static bool member_of(uid_t uid, gid_t gid, gid_t wanted) {
  if (gid == wanted) return true;
  struct group *g = getgrgid(wanted);
  struct passwd *u = g ? getpwuid(uid) : NULL;
  for (int i = 0; u && g->gr_mem[i]; i++)
    if (!strcmp(g->gr_mem[i], u->pw_name)) return true;
  return false;
}

int config_grants(const config *c, uid_t uid, gid_t gid) {
  if (uid == 0 || uid == geteuid()) return GRANT_ALL;
  int grants = 0;
  for (size_t i = 0; i < c->n_principals; i++) {
    const principal *p = &c->principals[i];
    bool is = p->any || (p->group && member_of(uid, gid, p->id)) ||
              (!p->any && !p->self && !p->group && p->id == uid);
    if (is) grants |= p->grants;
  }
  return grants;
}
