/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/random_tensors.h"

#include "base/half.h"
#include "base/thread.h"
#include "model/layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 80, MAX_MADE = 48, BLOCK_BYTES = 1 << 16 };

enum fill { FILL_NIBBLES, FILL_BYTES, FILL_OUTLIERS, FILL_SCALES, FILL_BF16, FILL_ORDER };

/* Standard deviations of what FILL_NIBBLES, FILL_BYTES and FILL_OUTLIERS give. */
static const float nibble_size = 4.18f, byte_size = 73.3f, outlier_size = 18.5f;

/* Numbers lie around `mid`, uniform to `by` either side. */
struct spec {
    enum atom_dtype dtype;
    int64_t rows, cols; /* cols 0: one dimension */
    enum fill fill;
    float mid, by;
};

struct atom_random {
    uint64_t seed;
    int n_made, per_layer, n;
    struct {
        char name[NAME_BYTES]; /* of a layer's: what follows "model.layers.N." */
        struct atom_tensor t;
        void *data;
    } made[MAX_MADE];
    struct atom_tensor *list; /* [n] */
    char *names;              /* [n][NAME_BYTES] */
};

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

struct filler {
    const struct spec *spec;
    uint8_t *data;
    size_t n_bytes;
    uint64_t seed;
};

/* Symmetric: no nibble says -8, no byte -128. */
static uint8_t settle_byte(uint8_t b, enum fill fill)
{
    if (fill == FILL_NIBBLES)
        return (uint8_t)(b | (b & 0x0F ? 0 : 0x08) | (b & 0xF0 ? 0 : 0x80));
    if (fill == FILL_BYTES)
        return b == 0x80 ? 0 : b;
    int8_t q = (int8_t)b;
    return (uint8_t)(int8_t)(q / 4);
}

static uint16_t settle_half(uint16_t bits, const struct spec *s)
{
    float x = s->mid + s->by * (float)(int16_t)bits * 0x1p-15f;
    return s->dtype == ATOM_F16 ? atom_float_f16(x) : atom_float_bf16(x);
}

static void fill_block(void *ctx, int i, int worker)
{
    const struct filler *f = ctx;
    size_t at = (size_t)i * BLOCK_BYTES, end = at + BLOCK_BYTES < f->n_bytes ? at + BLOCK_BYTES : f->n_bytes;
    uint64_t state = f->seed + (uint64_t)i * 0xD1342543DE82EF95u;
    (void)worker;
    for (; at < end; at += 8) {
        uint64_t bits = next(&state);
        uint8_t eight[8];
        memcpy(eight, &bits, sizeof eight);
        for (int j = 0; j < 8 && f->spec->fill < FILL_SCALES; j++)
            eight[j] = settle_byte(eight[j], f->spec->fill);
        for (int j = 0; j < 8 && f->spec->fill >= FILL_SCALES; j += 2) {
            uint16_t h = settle_half((uint16_t)(bits >> (8 * j)), f->spec);
            memcpy(eight + j, &h, sizeof h);
        }
        memcpy(f->data + at, eight, end - at < 8 ? end - at : 8);
    }
}

static void fill_order(int32_t *order, int n, uint64_t state)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)(next(&state) % (uint64_t)(i + 1)), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static enum atom_status make(struct atom_random *r, const struct spec *s, struct atom_error *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static enum atom_status make(struct atom_random *r, const struct spec *s, struct atom_error *err, const char *fmt, ...)
{
    size_t n = (size_t)s->rows * (size_t)(s->cols ? s->cols : 1), n_bytes = n * atom_dtype_bytes(s->dtype);
    uint64_t state = r->seed + (uint64_t)r->n_made, seed = next(&state);
    uint8_t *data = malloc(n_bytes);
    if (!data)
        return atom_fail_nomem(err, n_bytes);
    if (s->fill == FILL_ORDER)
        fill_order((int32_t *)(void *)data, (int)n, seed);
    else
        atom_parallel((int)((n_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES), fill_block,
                      &(struct filler){s, data, n_bytes, seed});
    char *name = r->made[r->n_made].name;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, NAME_BYTES, fmt, ap);
    va_end(ap);
    r->made[r->n_made].data = data;
    r->made[r->n_made++].t = (struct atom_tensor){.dtype = s->dtype,
                                                  .n_dims = s->cols ? 2 : 1,
                                                  .dims = {s->rows, s->cols},
                                                  .data = data,
                                                  .n_bytes = n_bytes,
                                                  .file = "random"};
    return ATOM_OK;
}

/* Outputs of magnitude `gain` for inputs of magnitude 1. */
static enum atom_status make_proj(struct atom_random *r, const struct atom_config *cfg, int p, struct atom_error *err)
{
    const struct atom_proj *proj = &atom_projs[p];
    const struct atom_scheme *scheme = &cfg->scheme;
    int n = atom_proj_rows(cfg, p), k = atom_site_channels(cfg, proj->site), c = scheme->rows_per_scale;
    bool into_x = proj->linear == ATOM_LIN_O || proj->linear == ATOM_LIN_DOWN;
    float size = (into_x ? 0.5f : 1.0f) / sqrtf((float)k), s4 = size / nibble_size, s8 = size / outlier_size;
    struct atom_layout lay;
    enum atom_status st = atom_scheme_layout(scheme, k, &lay, err);
    if (st)
        return st;
    int o = lay.outliers, groups = lay.n_groups;
    atom_layout_fini(&lay);
    const struct spec q = {ATOM_U8, n, (k - o + 1) / 2, FILL_NIBBLES, 0, 0},
                      s = {ATOM_F16, (n + c - 1) / c, groups, FILL_SCALES, s4, 0.2f * s4},
                      q8 = {ATOM_I8, n, o, FILL_OUTLIERS, 0, 0}, s8s = {ATOM_F16, n, 0, FILL_SCALES, s8, 0.2f * s8};
    st = make(r, &q, err, "%s.qweight", proj->name);
    st = st ? st : make(r, &s, err, "%s.scales", proj->name);
    if (st || !o)
        return st;
    st = make(r, &q8, err, "%s.outlier_qweight", proj->name);
    return st ? st : make(r, &s8s, err, "%s.outlier_scales", proj->name);
}

static enum atom_status make_layer(struct atom_random *r, const struct atom_config *cfg, struct atom_error *err)
{
    const struct spec norm = {ATOM_BF16, cfg->hidden, 0, FILL_BF16, 1, 0.1f};
    enum atom_status st = make(r, &norm, err, "input_layernorm.weight");
    st = st ? st : make(r, &norm, err, "post_attention_layernorm.weight");
    for (int i = 0; i < ATOM_N_SITES && !st; i++) {
        const struct spec order = {ATOM_I32, atom_site_channels(cfg, (enum atom_site_id)i), 0, FILL_ORDER, 0, 0};
        st = make(r, &order, err, "%s.order", atom_site_names[i]);
    }
    for (int p = 0; p < ATOM_N_PROJ && !st; p++)
        st = make_proj(r, cfg, p, err);
    r->per_layer = r->n_made;
    return st;
}

static enum atom_status make_ends(struct atom_random *r, const struct atom_config *cfg, struct atom_error *err)
{
    float size = 2 / sqrtf((float)cfg->hidden), s8 = size / byte_size;
    const struct spec embedding = {ATOM_BF16, cfg->vocab, cfg->hidden, FILL_BF16, 0, sqrtf(3)},
                      norm = {ATOM_BF16, cfg->hidden, 0, FILL_BF16, 1, 0.1f},
                      head = {ATOM_BF16, cfg->vocab, cfg->hidden, FILL_BF16, 0, sqrtf(3) * size},
                      q = {ATOM_I8, cfg->vocab, cfg->hidden, FILL_BYTES, 0, 0},
                      s = {ATOM_F16, cfg->vocab, 0, FILL_SCALES, s8, 0.2f * s8};
    enum atom_status st = make(r, &embedding, err, "model.embed_tokens.weight");
    st = st ? st : make(r, &norm, err, "model.norm.weight");
    if (cfg->scheme.lm_head_bits == 16)
        return st ? st : make(r, &head, err, "lm_head.weight");
    st = st ? st : make(r, &q, err, "lm_head.qweight");
    return st ? st : make(r, &s, err, "lm_head.scales");
}

static enum atom_status make_list(struct atom_random *r, int layers, struct atom_error *err)
{
    r->n = layers * r->per_layer + r->n_made - r->per_layer;
    r->list = calloc((size_t)r->n, sizeof *r->list);
    r->names = malloc((size_t)r->n * (NAME_BYTES));
    if (!r->list || !r->names)
        return atom_fail_nomem(err, (size_t)r->n * (sizeof *r->list + NAME_BYTES));
    for (int i = 0; i < r->n; i++) {
        bool ends = i >= layers * r->per_layer;
        int from = ends ? i - (layers - 1) * r->per_layer : i % r->per_layer;
        char *name = r->names + (size_t)i * (NAME_BYTES);
        if (ends)
            snprintf(name, NAME_BYTES, "%s", r->made[from].name);
        else
            snprintf(name, NAME_BYTES, "model.layers.%d.%s", i / r->per_layer, r->made[from].name);
        r->list[i] = r->made[from].t;
        r->list[i].name = name;
    }
    return ATOM_OK;
}

enum atom_status atom_random_create(const struct atom_config *cfg, uint64_t seed, struct atom_random **out,
                                    struct atom_error *err)
{
    struct atom_random *r = calloc(1, sizeof *r);
    if (!r)
        return atom_fail_nomem(err, sizeof *r);
    r->seed = seed;
    enum atom_status st = make_layer(r, cfg, err);
    st = st ? st : make_ends(r, cfg, err);
    st = st ? st : make_list(r, cfg->layers, err);
    if (st) {
        atom_random_free(r);
        return st;
    }
    *out = r;
    return ATOM_OK;
}

void atom_random_free(struct atom_random *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->n_made; i++)
        free(r->made[i].data);
    free(r->list);
    free(r->names);
    free(r);
}

const struct atom_tensor *atom_random_list(const struct atom_random *r, int *n)
{
    *n = r->n;
    return r->list;
}

int atom_random_per_layer(const struct atom_random *r) { return r->per_layer; }

void atom_random_drop_packed(struct atom_random *r)
{
    for (int i = 0; i < r->n_made; i++) {
        if (strcmp(r->made[i].name, "model.embed_tokens.weight") == 0)
            continue;
        free(r->made[i].data);
        r->made[i].data = NULL;
    }
}
