/* Compiling this file is the test: the layout that was committed holds for this compiler. */
#include "vivarium/layout.h"

extern int abi_layout_holds;
int abi_layout_holds = 1;
