/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of a GPU as JSON. */
#include "bench/gpu_bench.h"

#include "bench/machine.h"

#include <jansson.h>

const char *const atom_gpu_ceiling_names[ATOM_GPU_N_CEILINGS] = {"",    "read", "copy", "int4",  "int8",
                                                                 "fp8", "fp16", "fp32", "launch"};
const char *const atom_gpu_what_names[ATOM_GPU_N_WHATS] = {"ceiling", "linear", "rows", "attention"};

static void set_text(json_t *o, const char *name, const char *text)
{
    if (text && *text)
        json_object_set_new(o, name, json_string(text));
}

static void set_whole(json_t *o, const char *name, int n)
{
    if (n > 0)
        json_object_set_new(o, name, json_integer(n));
}

static void set_real(json_t *o, const char *name, double x)
{
    if (x > 0)
        json_object_set_new(o, name, json_real(x));
}

static void set_machine(json_t *o, const struct atom_gpu_machine *m)
{
    set_text(o, "device", m ? m->device : NULL);
    set_text(o, "capability", m ? m->capability : NULL);
    set_text(o, "driver", m ? m->driver : NULL);
    set_text(o, "cuda", m ? m->cuda : NULL);
    set_text(o, "compiler", m ? m->compiler : NULL);
    set_text(o, "version", ATOM_VERSION);
    set_text(o, "commit", atom_machine_commit());
}

static void set_ceiling(json_t *o, const struct atom_gpu_line *l)
{
    set_real(o, "gb_s", l->bytes * 1e-9);
    set_real(o, l->ops > 1e9 ? "tops" : "launches_s", l->ops > 1e9 ? l->ops * 1e-12 : l->ops);
    set_real(o, "clock_mhz", l->clock_hz * 1e-6);
}

static void set_measured(json_t *o, const struct atom_gpu_line *l)
{
    set_real(o, "tops", l->ops / l->median_s * 1e-12);
    set_real(o, "gb_s", l->bytes / l->median_s * 1e-9);
    set_real(o, "quantize_us", l->quantize_s * 1e6);
    set_text(o, "bound", atom_gpu_ceiling_names[l->bound]);
    set_real(o, "share", l->share);
    set_whole(o, "checked", l->checked);
    json_object_set_new(o, "cold", json_boolean(l->cold));
}

char *atom_gpu_json(const struct atom_gpu_line *l)
{
    json_t *o = json_object();
    if (!o)
        return NULL;
    set_text(o, "what", atom_gpu_what_names[l->what]);
    set_text(o, l->what == ATOM_GPU_LINEAR ? "scheme" : "name", l->name);
    set_text(o, "shape", l->shape);
    set_text(o, l->what == ATOM_GPU_LINEAR ? "of" : "on", l->whose);
    set_text(o, "how", l->how);
    set_whole(o, "n", l->n);
    set_whole(o, "k", l->k);
    set_whole(o, "tokens", l->tokens);
    if (l->what == ATOM_GPU_ATTENTION)
        json_object_set_new(o, "context", json_integer(l->context));
    set_whole(o, "kv", l->kvbits);
    set_real(o, "median_us", l->median_s * 1e6);
    set_real(o, "fastest_us", l->fastest_s * 1e6);
    if (l->what == ATOM_GPU_CEILING)
        set_ceiling(o, l);
    else if (l->median_s > 0)
        set_measured(o, l);
    set_whole(o, "launches", l->launches);
    set_whole(o, "repeats", l->repeats);
    set_machine(o, l->machine);
    char *text = json_dumps(o, JSON_REAL_PRECISION(6));
    json_decref(o);
    return text;
}
