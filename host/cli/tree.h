/* JSON for people. Internal to host/cli. */
#ifndef VIV_HOST_CLI_TREE_H
#define VIV_HOST_CLI_TREE_H

#include "cli/cli.h"

/* One "key  value" line per member, nested objects indented, short lists on one line. Members whose
 * name ends in "bytes" are shown as sizes. */
void viv__print_tree(const cJSON *node, int indent);

#endif
