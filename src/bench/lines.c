/* SPDX-License-Identifier: Apache-2.0 */
/* Lines as JSON, and lists as options spell them. */
#include "bench/bench.h"

#include "base/error.h"
#include "bench/machine.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

static const char *const what_names[] = {"ceiling", "kernel", "model", "memory", "load"};
static const char *const bound_names[] = {NULL, "int8", "f32", "bf16", "read"};

static void set_text(json_t *o, const char *name, const char *text)
{
    if (text && *text)
        json_object_set_new(o, name, json_string(text));
}

static void set_whole(json_t *o, const char *name, double n)
{
    json_object_set_new(o, name, json_integer((json_int_t)n));
}

/* null where nothing is known */
static void set_real(json_t *o, const char *name, double x)
{
    json_object_set_new(o, name, x > 0 ? json_real(x) : json_null());
}

static void set_scheme(json_t *o, const struct atom_bench_line *l)
{
    set_whole(o, "wbits", l->wbits);
    set_whole(o, "abits", l->abits);
    set_whole(o, "kv", l->kv);
}

static void set_time(json_t *o, const struct atom_bench_line *l)
{
    set_real(o, "median_s", l->median_s);
    set_real(o, "fastest_s", l->fastest_s);
    if (l->ops > 0)
        set_real(o, "ops_s", l->ops / l->median_s);
    if (l->bytes > 0)
        set_real(o, "bytes_s", l->bytes / l->median_s);
    set_text(o, "bound", bound_names[l->bound]);
    set_real(o, "share", l->share);
    if (l->ceiling > 0)
        set_real(o, "ceiling_bytes_s", l->ceiling);
}

static void set_ceiling(json_t *o, const struct atom_bench_line *l)
{
    set_text(o, "name", l->name);
    set_text(o, "how", l->how);
    if (l->bytes > 0)
        set_real(o, "bytes_s", l->bytes);
    else
        set_real(o, "ops_s", l->ops);
}

static void set_kernel(json_t *o, const struct atom_bench_line *l)
{
    json_t *checked = json_array();
    for (int i = 0; l->checked[i]; i++)
        json_array_append_new(checked, json_integer(l->checked[i]));
    set_text(o, "name", l->name);
    set_text(o, "on", l->how);
    set_whole(o, "tokens", l->tokens);
    set_whole(o, "depth", l->depth);
    set_scheme(o, l);
    set_time(o, l);
    json_object_set_new(o, "same_bits_at_tokens", checked);
}

static void set_model(json_t *o, const struct atom_bench_line *l)
{
    set_text(o, "phase", l->name);
    set_whole(o, "tokens", l->tokens);
    set_whole(o, "depth", l->depth);
    set_whole(o, "batch", l->batch);
    set_scheme(o, l);
    set_whole(o, "head", l->head);
    set_real(o, "tok_s", l->tok_s);
    set_time(o, l);
}

static void set_memory(json_t *o, const struct atom_bench_line *l)
{
    set_scheme(o, l);
    set_whole(o, "head", l->head);
    set_whole(o, "weights_bytes", l->memory.weights);
    set_whole(o, "head_bytes", l->memory.head);
    set_whole(o, "embedding_bytes", l->memory.embedding);
    set_whole(o, "kv_4096_bytes", l->memory.kv);
    set_whole(o, "peak_bytes", l->memory.peak);
}

static void set_load(json_t *o, const struct atom_bench_line *l)
{
    set_real(o, "open_s", l->open_s);
    set_real(o, "first_token_s", l->first_s);
    set_whole(o, "peak_bytes", l->memory.peak);
}

char *atom_bench_json(const struct atom_bench_line *l)
{
    static void (*const set[])(json_t *, const struct atom_bench_line *) = {set_ceiling, set_kernel, set_model,
                                                                            set_memory, set_load};
    json_t *o = json_object();
    if (!o)
        return NULL;
    set_text(o, "what", what_names[l->what]);
    set_text(o, l->what == ATOM_BENCH_LOAD ? "dir" : "shape", l->shape);
    set[l->what](o, l);
    set_text(o, "tier", atom_runtime_cpu());
    set_whole(o, "threads", l->threads);
    set_text(o, "machine", atom_machine_name());
    set_text(o, "compiler", atom_machine_compiler());
    set_text(o, "version", ATOM_VERSION);
    set_text(o, "commit", atom_machine_commit());
    char *text = json_dumps(o, JSON_REAL_PRECISION(6));
    json_decref(o);
    return text;
}

enum atom_status atom_bench_parse_list(const struct atom_bench_range *range, const char *text,
                                       struct atom_bench_list *out, struct atom_error *err)
{
    struct atom_bench_list list = {0};
    for (const char *at = text;;) {
        char *end;
        errno = 0;
        long v = strtol(at, &end, 10);
        bool digits = *at == '-' || (*at >= '0' && *at <= '9');
        if (errno || !digits || end == at || v < range->min || v > range->max || (*end && *end != ','))
            return atom_fail(err, ATOM_ERR_INVALID,
                             "%s takes whole numbers from %d to %d with commas between, not '%s'", range->what,
                             range->min, range->max, text);
        if (list.n == ATOM_BENCH_MAX_LIST)
            return atom_fail(err, ATOM_ERR_INVALID, "%s takes %d numbers at most, not '%s'", range->what,
                             ATOM_BENCH_MAX_LIST, text);
        list.at[list.n++] = (int)v;
        if (!*end)
            break;
        at = end + 1;
    }
    *out = list;
    return ATOM_OK;
}
