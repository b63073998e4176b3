/* A shared object without viv_plugin_entry. */
#include "../common.h"

extern const int nothing_to_see;
const int nothing_to_see = 1;
