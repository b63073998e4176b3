/* Keeps every promise: the validator must find nothing. */
#include "../common.h"

PLUGIN("good");
