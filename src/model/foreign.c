/* SPDX-License-Identifier: Apache-2.0 */
#include "model/foreign.h"

#include "model/scheme.h"

#include <stdio.h>
#include <string.h>

static const struct atom_foreign_format *const formats[] = {&atom_foreign_gptq, &atom_foreign_compressed};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

const struct atom_foreign_format *atom_foreign_find(const char *method)
{
    for (int i = 0; i < N_FORMATS; i++)
        if (strcmp(formats[i]->method, method) == 0)
            return formats[i];
    return NULL;
}

struct atom_scheme atom_foreign_scheme(int bits, int group)
{
    struct atom_scheme s = atom_scheme_float;
    s.wbits = bits;
    s.group = group;
    s.kv_rope = ATOM_KV_POST;
    return s;
}
