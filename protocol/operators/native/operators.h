/* What the Python module says to the operators and asks of them. */

#ifndef BITFLEET_OPERATORS_H
#define BITFLEET_OPERATORS_H

#include "binary.h"

/* The path of the kernels that are made from now on. */
void operators_choose(const Path *path);
const Path *operators_chosen(void);

/* Whether the operators were tried with ONNX Runtime of this version. */
int operators_run_with(const char *version);

#endif
