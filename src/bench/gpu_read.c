/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of a GPU back from JSON. */
#include "bench/gpu_bench.h"

#include "base/error.h"
#include "base/file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20 };

static double real(const json_t *o, const char *name) { return json_number_value(json_object_get(o, name)); }
static int whole(const json_t *o, const char *name) { return (int)json_integer_value(json_object_get(o, name)); }

static void text(const json_t *o, const char *name, char *out, size_t room)
{
    const char *from = json_string_value(json_object_get(o, name));
    if (from)
        snprintf(out, room, "%s", from);
}

static int index_of(const json_t *o, const char *name, const char *const *words, int n)
{
    const char *word = json_string_value(json_object_get(o, name));
    int i = 0;
    while (word && i < n && strcmp(words[i], word) != 0)
        i++;
    return word ? i : n;
}

static void read_machine(const json_t *o, struct atom_gpu_machine *m)
{
    text(o, "device", m->device, sizeof m->device);
    text(o, "capability", m->capability, sizeof m->capability);
    text(o, "driver", m->driver, sizeof m->driver);
    text(o, "cuda", m->cuda, sizeof m->cuda);
    text(o, "compiler", m->compiler, sizeof m->compiler);
}

/* Rates were written, amounts are wanted. */
static void read_amounts(const json_t *o, struct atom_gpu_line *l)
{
    double seconds = l->what == ATOM_GPU_CEILING ? 1 : l->median_s;
    l->ops = real(o, "tops") * 1e12 * seconds;
    l->bytes = real(o, "gb_s") * 1e9 * seconds;
    if (l->what == ATOM_GPU_CEILING && l->ops <= 0)
        l->ops = real(o, "launches_s");
    l->clock_hz = real(o, "clock_mhz") * 1e6;
    l->quantize_s = real(o, "quantize_us") * 1e-6;
    l->share = real(o, "share");
}

static bool read_line(const json_t *o, struct atom_gpu_line *l)
{
    int what = index_of(o, "what", atom_gpu_what_names, ATOM_GPU_N_WHATS);
    int bound = index_of(o, "bound", atom_gpu_ceiling_names, ATOM_GPU_N_CEILINGS);
    if (what == ATOM_GPU_N_WHATS)
        return false;
    *l = (struct atom_gpu_line){.what = (enum atom_gpu_what)what,
                                .n = whole(o, "n"),
                                .k = whole(o, "k"),
                                .tokens = whole(o, "tokens"),
                                .context = whole(o, "context"),
                                .kvbits = whole(o, "kv"),
                                .cold = json_is_true(json_object_get(o, "cold")),
                                .launches = whole(o, "launches"),
                                .repeats = whole(o, "repeats"),
                                .checked = whole(o, "checked"),
                                .median_s = real(o, "median_us") * 1e-6,
                                .fastest_s = real(o, "fastest_us") * 1e-6,
                                .bound = bound < ATOM_GPU_N_CEILINGS ? (enum atom_gpu_ceiling)bound : ATOM_GPU_NONE};
    text(o, what == ATOM_GPU_LINEAR ? "scheme" : "name", l->name, sizeof l->name);
    text(o, "shape", l->shape, sizeof l->shape);
    text(o, what == ATOM_GPU_LINEAR ? "of" : "on", l->whose, sizeof l->whose);
    text(o, "how", l->how, sizeof l->how);
    read_amounts(o, l);
    return true;
}

enum atom_status atom_gpu_read(const char *path, atom_gpu_line_fn *on_line, void *user, struct atom_error *err)
{
    static struct atom_gpu_machine machine;
    struct atom_gpu_line line;
    char *data = NULL;
    size_t n_bytes;
    int number = 0;
    memset(&machine, 0, sizeof machine);
    enum atom_status st = atom_file_read(path, MOST_BYTES, &data, &n_bytes, err);
    for (char *at = data, *next; !st && at && *at; at = next) {
        char *end = strchr(at, '\n');
        next = end ? end + 1 : at + strlen(at);
        number++;
        json_t *o = json_loadb(at, (size_t)((end ? end : next) - at), 0, NULL);
        if (!o || !read_line(o, &line)) {
            st = atom_fail(err, ATOM_ERR_FORMAT, "%s: line %d is none of 'atom bench gpu --json'", path, number);
        } else {
            if (number == 1)
                read_machine(o, &machine);
            line.machine = &machine;
            on_line(user, &line);
        }
        json_decref(o);
    }
    free(data);
    return st;
}
