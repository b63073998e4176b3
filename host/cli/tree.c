/* JSON for people: one line per member. */
#include "cli/tree.h"

#include <math.h>
#include <string.h>

static bool is_short_list(const cJSON *node) {
  const cJSON *item;
  if (!cJSON_IsArray(node)) return false;
  cJSON_ArrayForEach(item, node) if (cJSON_IsArray(item) || cJSON_IsObject(item)) return false;
  return true;
}

static void print_scalar(const cJSON *node) {
  char size[32];
  const char *key = node->string ? node->string : "";
  size_t len = strlen(key);
  if (cJSON_IsString(node)) {
    printf("%s", node->valuestring);
  } else if (cJSON_IsBool(node)) {
    printf("%s", cJSON_IsTrue(node) ? "yes" : "no");
  } else if (cJSON_IsNull(node)) {
    printf("-");
  } else if (len >= 5 && !strcmp(key + len - 5, "bytes")) {
    printf("%s", viv__size_text(node->valuedouble, size));
  } else if (node->valuedouble == floor(node->valuedouble) && fabs(node->valuedouble) < 1e15) {
    printf("%.0f", node->valuedouble);
  } else {
    printf("%g", node->valuedouble);
  }
}

void viv__print_tree(const cJSON *node, int indent) {
  const cJSON *item, *part;
  cJSON_ArrayForEach(item, node) {
    int width = 26 - indent;
    if (item->string)
      printf("%*s%-*s ", indent, "", width > 0 ? width : 0, item->string);
    else
      printf("%*s", indent, "");
    if (is_short_list(item)) {
      cJSON_ArrayForEach(part, item) {
        if (part != item->child) printf(", ");
        print_scalar(part);
      }
      printf("\n");
    } else if (cJSON_IsObject(item) || cJSON_IsArray(item)) {
      printf("\n");
      viv__print_tree(item, indent + 2);
    } else {
      print_scalar(item);
      printf("\n");
    }
  }
}
