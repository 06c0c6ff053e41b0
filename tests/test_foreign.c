/* SPDX-License-Identifier: Apache-2.0 */
/* Linears of GPTQ and compressed-tensors directories: every weight to the last bit, and what is refused. */
#include "foreign.h"

#include "model/model.h"

#include <math.h>

static struct atom_error err;

static int start(void **state)
{
    (void)state;
    assert_ok(atom_runtime_init(NULL, &err), &err);
    return 0;
}

static int end(void **state)
{
    (void)state;
    atom_runtime_fini();
    return 0;
}

static const struct atom_config shape = {.hidden = 64, .intermediate = 96, .heads = 4, .kv_heads = 2, .head_dim = 16};

/* The weight of stored row r and channel c that a part holds. */
static float part_weight(const struct atom_linear_part *part, const struct atom_layout *lay, int r, int c)
{
    size_t k = (size_t)lay->k, at = (size_t)r * k + (size_t)c;
    uint16_t h;
    int q;
    if (part->kind == ATOM_W_F32)
        return ((const float *)part->weight)[at];
    if (part->kind == ATOM_W_BYTE)
        q = ((const int8_t *)part->qweight)[at];
    else
        q = (part->qweight[(size_t)r * ((k + 1) / 2) + (size_t)c / 2] >> (c % 2 * 4) & 15) - 8;
    int group = lay->group ? c / lay->group : 0;
    memcpy(&h, (const uint8_t *)part->scales + 2 * ((size_t)r * (size_t)lay->n_groups + (size_t)group), 2);
    return (float)q * atom_f16_float(h);
}

/* Every part, read back, is the weights; all have this kind. */
static void check_layer(const struct foreign *f, const struct atom_config *cfg, enum atom_weight_kind kind)
{
    struct atom_foreign_layer layer;
    assert_ok(atom_foreign_layer_open(cfg, f->tensors, 0, &layer, &err), &err);
    for (int p = 0; p < ATOM_N_PROJ; p++) {
        struct atom_linear_part part = {.n = atom_proj_rows(cfg, p)};
        struct atom_layout lay;
        void *memory;
        const int32_t *order = layer.orders[atom_projs[p].site];
        int k = atom_site_channels(cfg, atom_projs[p].site);
        if (atom_projs[p].linear == ATOM_LIN_GATE_UP)
            part.row_order = layer.orders[ATOM_DOWN_IN];
        assert_ok(atom_scheme_layout(&cfg->scheme, k, &lay, &err), &err);
        assert_ok(atom_foreign_part(&layer, p, &part, &memory, &err), &err);
        assert_int_equal(part.kind, kind);
        bool natural = kind == ATOM_W_F32;
        for (int r = 0; r < part.n; r++)
            for (int c = 0; c < k; c++) {
                int row = part.row_order && !natural ? part.row_order[r] : r, col = order && !natural ? order[c] : c;
                float want = f->weights[p][(size_t)row * (size_t)k + (size_t)col];
                assert_true(part_weight(&part, &lay, r, c) == want);
            }
        free(memory);
        atom_layout_fini(&lay);
    }
    atom_foreign_layer_fini(&layer);
}

static void check(struct foreign f, enum atom_weight_kind kind, bool sorted)
{
    struct atom_config cfg = shape;
    foreign_layer(&f, &cfg);
    struct atom_foreign_layer layer;
    assert_ok(atom_foreign_layer_open(&cfg, f.tensors, 0, &layer, &err), &err);
    assert_int_equal(layer.orders[ATOM_MLP_IN] != NULL, sorted);
    atom_foreign_layer_fini(&layer);
    check_layer(&f, &cfg, kind);
    foreign_free(&f);
}

/* Groups dealt out like cards. */
static int dealt(const struct foreign *f, int proj, int k, int i)
{
    (void)proj;
    return i % (k / f->group);
}

static int dealt_apart(const struct foreign *f, int proj, int k, int i) { return (i + proj) % (k / f->group); }

static int uneven(const struct foreign *f, int proj, int k, int i)
{
    (void)proj;
    return i == 0 ? 1 : i / f->group % (k / f->group);
}

static void gptq(void **state)
{
    (void)state;
    check((struct foreign){.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 32}, ATOM_W_NIBBLE, false);
    check((struct foreign){.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 0}, ATOM_W_NIBBLE, false);
    check((struct foreign){.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 32, .v2 = true}, ATOM_W_NIBBLE, false);
    check((struct foreign){.gptq = true, .scales = ATOM_F16, .bits = 8, .group = 32}, ATOM_W_BYTE, false);
    check((struct foreign){.gptq = true, .scales = ATOM_F16, .bits = 2, .group = 16}, ATOM_W_NIBBLE, false);
    check((struct foreign){.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 48}, ATOM_W_NIBBLE,
          false); /* a short last group */
}

static void gptq_orders(void **state)
{
    (void)state;
    struct foreign f = {.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 16, .ordered = true, .group_of = dealt};
    check(f, ATOM_W_NIBBLE, true);
    f.bits = 8;
    check(f, ATOM_W_BYTE, true);
    f.asymmetric = f.v2 = true;
    check(f, ATOM_W_F32, true); /* 9 bits */
    f.bits = 4;
    check(f, ATOM_W_BYTE, true);
    f.group_of = NULL; /* in order after all */
    check(f, ATOM_W_BYTE, false);
}

/* What no site has an order for is float32: no value changes. */
static void orders_that_differ(void **state)
{
    (void)state;
    struct foreign f = {.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 16, .ordered = true, .group_of = uneven};
    struct atom_config cfg = shape;
    struct atom_foreign_layer layer;
    check(f, ATOM_W_F32, false);
    f.group_of = dealt_apart;
    foreign_layer(&f, &cfg);
    assert_ok(atom_foreign_layer_open(&cfg, f.tensors, 0, &layer, &err), &err);
    assert_int_equal(layer.linears[0].form, ATOM_FORM_FLOAT);
    assert_non_null(strstr(layer.linears[0].why, "g_idx"));
    assert_int_equal(layer.linears[3].form, ATOM_FORM_NIBBLE); /* o_proj and down_proj have no neighbour */
    assert_int_equal(layer.linears[6].form, ATOM_FORM_NIBBLE);
    assert_true(!layer.orders[ATOM_ATTN_IN] && layer.orders[ATOM_O_IN]);
    atom_foreign_layer_fini(&layer);
    foreign_free(&f);
}

static void compressed(void **state)
{
    (void)state;
    check((struct foreign){.bits = 4, .group = 32, .scales = ATOM_F16}, ATOM_W_NIBBLE, false);
    check((struct foreign){.bits = 4, .group = 32, .scales = ATOM_BF16}, ATOM_W_NIBBLE, false);
    check((struct foreign){.bits = 4, .group = 0, .scales = ATOM_F16}, ATOM_W_NIBBLE, false);
    check((struct foreign){.bits = 2, .group = 32, .scales = ATOM_F16}, ATOM_W_NIBBLE, false);
    check((struct foreign){.bits = 8, .group = 32, .scales = ATOM_F16}, ATOM_W_BYTE, false);
    check((struct foreign){.bits = 8, .bytes = true, .scales = ATOM_BF16}, ATOM_W_BYTE, false);
    check((struct foreign){.bits = 4, .group = 32, .scales = ATOM_F16, .asymmetric = true}, ATOM_W_BYTE, false);
    struct foreign f = {.bits = 4, .group = 16, .scales = ATOM_F16, .ordered = true, .group_of = dealt};
    check(f, ATOM_W_NIBBLE, true);
}

/* float32 then holds the very product that the library computes. */
static void scales_no_half_holds(void **state)
{
    (void)state;
    check((struct foreign){.bits = 4, .group = 32, .scales = ATOM_F32}, ATOM_W_F32, false);
    check((struct foreign){.bits = 8, .bytes = true, .scales = ATOM_F32}, ATOM_W_F32, false);
    check((struct foreign){.bits = 4, .group = 32, .scales = ATOM_BF16, .wild_scales = true}, ATOM_W_F32, false);
}

/* Rows and channels that fill no whole word or block. */
static void any_size(void **state)
{
    (void)state;
    const struct atom_config odd = {.hidden = 36, .intermediate = 50, .heads = 3, .kv_heads = 1, .head_dim = 14};
    const struct foreign all[] = {
        {.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 12},
        {.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 7, .asymmetric = true, .v2 = true},
        {.bits = 4, .group = 10, .scales = ATOM_F16},
        {.bits = 4, .group = 10, .scales = ATOM_F16, .asymmetric = true},
        {.bits = 8, .bytes = true, .scales = ATOM_F16}};
    const enum atom_weight_kind kinds[] = {ATOM_W_NIBBLE, ATOM_W_BYTE, ATOM_W_NIBBLE, ATOM_W_BYTE, ATOM_W_BYTE};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct foreign f = all[i];
        struct atom_config cfg = odd;
        foreign_layer(&f, &cfg);
        check_layer(&f, &cfg, kinds[i]);
        foreign_free(&f);
    }
}

/* ---- refusals ------------------------------------------------------------------------------------------------------
 */

typedef void spoil_fn(struct atom_tensor *t, uint8_t *data);

static enum atom_status open_all(const struct atom_config *cfg, const struct atom_tensors *tensors)
{
    struct atom_foreign_layer layer;
    memset(&err, 0, sizeof err);
    enum atom_status st = atom_foreign_layer_open(cfg, tensors, 0, &layer, &err);
    for (int p = 0; p < ATOM_N_PROJ && !st; p++) {
        struct atom_linear_part part = {.n = atom_proj_rows(cfg, p)};
        void *memory;
        st = atom_foreign_part(&layer, p, &part, &memory, &err);
        free(memory);
    }
    atom_foreign_layer_fini(&layer);
    return st;
}

/* The layer with one tensor spoiled is refused with these words. */
static void refused(struct foreign f, const char *part, spoil_fn *spoil, enum atom_status code, const char *words)
{
    struct atom_config cfg = shape;
    char name[96];
    bool found = false;
    foreign_layer(&f, &cfg);
    snprintf(name, sizeof name, "model.layers.0.%s", part);
    for (int i = 0; i < f.n; i++)
        if (strcmp(f.at[i].name, name) == 0) {
            spoil(&f.at[i], (uint8_t *)(uintptr_t)f.at[i].data);
            found = true;
        }
    assert_true(found);
    atom_tensors_close(f.tensors);
    memset(&err, 0, sizeof err);
    assert_ok(atom_tensors_wrap(f.at, (size_t)f.n, &f.tensors, &err), &err);
    assert_fails(open_all(&cfg, f.tensors), &err, code, words);
    foreign_free(&f);
}

static void gone(struct atom_tensor *t, uint8_t *data) { (void)data, t->name = "elsewhere"; }
static void other_type(struct atom_tensor *t, uint8_t *data) { (void)data, t->dtype = ATOM_U8; }
static void other_rows(struct atom_tensor *t, uint8_t *data) { (void)data, t->dims[0]--; }
static void one_more_dim(struct atom_tensor *t, uint8_t *data) { (void)data, t->dims[t->n_dims++] = 1; }
static void infinite(struct atom_tensor *t, uint8_t *data) { memcpy(data + t->n_bytes - 2, "\0\x7c", 2); }
static void all_ones(struct atom_tensor *t, uint8_t *data) { memset(data, 0xFF, t->n_bytes); }
static void zeros(struct atom_tensor *t, uint8_t *data) { memset(data, 0, t->n_bytes); }
static void one_more(struct atom_tensor *t, uint8_t *data) { (void)t, data[0]++; }
static void too_large(struct atom_tensor *t, uint8_t *data) { (void)t, memcpy(data + 4, &(int32_t){4}, 4); }
static void negative(struct atom_tensor *t, uint8_t *data) { (void)t, memcpy(data + 4, &(int32_t){-1}, 4); }

static void tensors_are_checked(void **state)
{
    static const char *const gptq_parts[] = {"self_attn.q_proj.qweight", "self_attn.o_proj.qzeros",
                                             "mlp.up_proj.scales", "mlp.down_proj.g_idx"};
    static const char *const parts[] = {"self_attn.v_proj.weight_packed", "mlp.gate_proj.weight_scale",
                                        "mlp.up_proj.weight_zero_point", "mlp.down_proj.weight_g_idx"};
    const struct foreign g = {
        .gptq = true, .scales = ATOM_F16, .bits = 4, .group = 16, .ordered = true, .group_of = dealt};
    const struct foreign c = {.bits = 4, .group = 16, .ordered = true, .asymmetric = true, .scales = ATOM_F16};
    (void)state;
    for (int i = 0; i < 8; i++) {
        const struct foreign f = i < 4 ? g : c;
        const char *part = i < 4 ? gptq_parts[i] : parts[i - 4];
        refused(f, part, gone, ATOM_ERR_FORMAT, "is missing");
        refused(f, part, other_type, ATOM_ERR_FORMAT, "has dtype");
        refused(f, part, other_rows, ATOM_ERR_FORMAT, "has shape");
        refused(f, part, one_more_dim, ATOM_ERR_FORMAT, "has shape");
    }
    refused(c, "mlp.up_proj.weight_shape", gone, ATOM_ERR_FORMAT, "is missing");
    refused(c, "mlp.up_proj.weight_shape", one_more, ATOM_ERR_FORMAT, "says [97, 64], [96, 64] is needed");
}

static void values_are_checked(void **state)
{
    const struct foreign g = {.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 16, .ordered = true};
    struct foreign c = {.bits = 4, .group = 16, .ordered = true, .scales = ATOM_F16}, a = g;
    (void)state;
    refused(g, "self_attn.k_proj.scales", infinite, ATOM_ERR_NUMERIC, "must be finite");
    refused(g, "self_attn.k_proj.g_idx", too_large, ATOM_ERR_FORMAT, "has no group 4, as entry 1 says, but 4 of them");
    refused(g, "self_attn.k_proj.g_idx", negative, ATOM_ERR_FORMAT, "has no group -1");
    refused(c, "self_attn.k_proj.weight_g_idx", negative, ATOM_ERR_FORMAT, "has no group -1");
    refused(c, "self_attn.k_proj.weight_scale", infinite, ATOM_ERR_NUMERIC, "must be finite");
    refused(g, "mlp.down_proj.qzeros", one_more, ATOM_ERR_FORMAT, "row 0, group 0 is 9, but");
    a.asymmetric = true;
    refused(a, "mlp.down_proj.qzeros", all_ones, ATOM_ERR_UNSUPPORTED, "row 0, group 0 is stored as 15");
}

/* A symmetric checkpoint's zero points are zeros, where it has some; entries of -1 alone are no order. */
static void leftovers_are_taken(void **state)
{
    struct foreign f = {.bits = 4, .group = 16, .ordered = true, .scales = ATOM_F16};
    struct atom_config cfg = shape;
    (void)state;
    foreign_layer(&f, &cfg);
    struct atom_tensor *z = foreign_add(&f, "mlp.up_proj", "weight_zero_point", ATOM_I8, 96, 4);
    for (int i = 0; i < f.n; i++)
        if (strstr(f.at[i].name, "g_idx"))
            all_ones(&f.at[i], (uint8_t *)(uintptr_t)f.at[i].data);
    atom_tensors_close(f.tensors);
    assert_ok(atom_tensors_wrap(f.at, (size_t)f.n, &f.tensors, &err), &err);
    check_layer(&f, &cfg, ATOM_W_NIBBLE);
    one_more(z, (uint8_t *)(uintptr_t)z->data);
    assert_fails(open_all(&cfg, f.tensors), &err, ATOM_ERR_FORMAT, "is not all zeros");
    zeros(z, (uint8_t *)(uintptr_t)z->data);
    assert_ok(open_all(&cfg, f.tensors), &err);
    foreign_free(&f);
}

/* Old programs write biases of zeros for models without. */
static void biases(void **state)
{
    struct foreign f = {.gptq = true, .scales = ATOM_F16, .bits = 4, .group = 16};
    struct atom_config cfg = shape;
    (void)state;
    foreign_layer(&f, &cfg);
    struct atom_tensor *b = foreign_add(&f, "mlp.up_proj", "bias", ATOM_F16, 96, -1);
    atom_tensors_close(f.tensors);
    assert_ok(atom_tensors_wrap(f.at, (size_t)f.n, &f.tensors, &err), &err);
    assert_ok(open_all(&cfg, f.tensors), &err);
    one_more(b, (uint8_t *)(uintptr_t)b->data);
    assert_fails(open_all(&cfg, f.tensors), &err, ATOM_ERR_UNSUPPORTED, "config.json says that there is none");
    foreign_free(&f);
}

/* A linear stored as floats keeps its neighbours company in float32. */
static void floats_among_them(void **state)
{
    struct foreign f = {.bits = 4, .group = 16, .scales = ATOM_F16};
    struct atom_config cfg = shape;
    struct atom_foreign_layer layer;
    (void)state;
    foreign_layer(&f, &cfg);
    for (int i = 0; i < f.n; i++)
        if (strstr(f.at[i].name, "k_proj.weight_") || strstr(f.at[i].name, "o_proj.weight_"))
            f.at[i].name = f.at[i].name + 1; /* nobody's */
    foreign_add(&f, "self_attn.k_proj", "weight", ATOM_BF16, 32, 64);
    foreign_add(&f, "self_attn.o_proj", "weight", ATOM_BF16, 64, 64);
    atom_tensors_close(f.tensors);
    assert_ok(atom_tensors_wrap(f.at, (size_t)f.n, &f.tensors, &err), &err);
    assert_ok(atom_foreign_layer_open(&cfg, f.tensors, 0, &layer, &err), &err);
    static const enum atom_weight_kind kinds[ATOM_N_PROJ] = {ATOM_W_F32,    ATOM_W_F32,    ATOM_W_F32,   ATOM_W_BF16,
                                                             ATOM_W_NIBBLE, ATOM_W_NIBBLE, ATOM_W_NIBBLE};
    for (int p = 0; p < ATOM_N_PROJ; p++) {
        struct atom_linear_part part = {.n = atom_proj_rows(&cfg, p)};
        void *memory;
        assert_ok(atom_foreign_part(&layer, p, &part, &memory, &err), &err);
        assert_int_equal(part.kind, kinds[p]);
        free(memory);
    }
    atom_foreign_layer_fini(&layer);
    cfg.scheme.abits = 8;
    memset(&err, 0, sizeof err);
    assert_fails(open_all(&cfg, f.tensors), &err, ATOM_ERR_UNSUPPORTED, "self_attn.k_proj is stored as floats");
    foreign_free(&f);
}

/* ---- whole models --------------------------------------------------------------------------------------------------
 */

enum { VOCAB = 64, N_TOKENS = 24 };

/* A part's tensor of this projection. */
static const struct atom_tensor *part_of(const struct foreign *f, int proj, const char *part)
{
    char name[96];
    snprintf(name, sizeof name, "model.layers.0.%s.%s", atom_projs[proj].name, part);
    return atom_tensors_find(f->tensors, name);
}

/* The linears as floats, or (bytes alone) as Atom's own checkpoints have them. */
static void add_ours(struct foreign *all, const struct foreign *f, const struct atom_config *cfg, bool floats)
{
    for (int p = 0; p < ATOM_N_PROJ; p++) {
        int n = atom_proj_rows(cfg, p), k = atom_site_channels(cfg, atom_projs[p].site);
        struct atom_tensor *t =
            foreign_add(all, atom_projs[p].name, floats ? "weight" : "qweight", floats ? ATOM_F32 : ATOM_I8, n, k);
        memcpy((void *)(uintptr_t)t->data, floats ? f->weights[p] : part_of(f, p, "weight")->data, t->n_bytes);
        if (floats)
            continue;
        t = foreign_add(all, atom_projs[p].name, "scales", ATOM_F16, n, 1);
        for (int r = 0; r < n; r++) {
            float x;
            atom_tensor_floats(part_of(f, p, "weight_scale"), (size_t)r, 1, &x);
            foreign_put_float(t, (size_t)r, x);
        }
    }
}

enum model { FOREIGN, FLOATS, OURS };

/* Logits after every token of a model of one layer. */
static void run_model(struct foreign *f, const struct atom_config *foreign_cfg, enum model model, float *logits)
{
    struct atom_config cfg = *foreign_cfg;
    struct foreign all = {.n = model == FOREIGN ? f->n : 0};
    struct atom_tensors *tensors;
    struct atom_model *m;
    struct atom_session *s;
    int seq, rows[N_TOKENS];
    int32_t tokens[N_TOKENS];
    memcpy(all.at, f->at, sizeof all.at);
    if (model != FOREIGN)
        add_ours(&all, f, &cfg, model == FLOATS);
    int linears = all.n;
    for (int i = 0; i < 5; i++) { /* the same for both models */
        static const char *const names[] = {"model.layers.0.input_layernorm.weight",
                                            "model.layers.0.post_attention_layernorm.weight", "model.norm.weight",
                                            "model.embed_tokens.weight", "lm_head.weight"};
        struct atom_tensor *t =
            foreign_add(&all, "", "", ATOM_F32, i < 3 ? cfg.hidden : VOCAB, i < 3 ? -1 : cfg.hidden);
        t->name = names[i];
        for (size_t j = 0; j < t->n_bytes / 4; j++)
            foreign_put_float(t, j, (float)((j * 7919 + (size_t)i * 31) % 97) / 48 - (i < 3 ? 0 : 1));
    }
    if (model != FOREIGN)
        cfg.foreign.format = NULL;
    if (model == FLOATS) {
        cfg.quantized = false;
        cfg.scheme.wbits = cfg.scheme.abits = 16;
    }
    assert_ok(atom_tensors_wrap(all.at, (size_t)all.n, &tensors, &err), &err);
    assert_ok(atom_model_build(&cfg, tensors, NULL, &m, &err), &err);
    assert_ok(atom_session_create(m, &(struct atom_session_options){.max_positions = 64}, &s, &err), &err);
    assert_ok(atom_session_add(s, &seq, &err), &err);
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * 37 + 5) % VOCAB, rows[i] = i;
    struct atom_step_seq step = {.sequence = seq, .tokens = tokens, .n_tokens = N_TOKENS};
    assert_ok(atom_session_step(s, &step, 1, &err), &err);
    assert_ok(atom_session_logits(s, rows, N_TOKENS, logits, &err), &err);
    atom_session_free(s);
    atom_model_close(m);
    for (int i = model == FOREIGN ? linears : 0; i < all.n; i++)
        free((void *)(uintptr_t)all.at[i].data);
}

/* Up to half precision in the cache; with bytes to the last bit. A channel out of place would show as differences as
 * large as the logits. */
static void models_agree(void **state)
{
    static const struct foreign all[] = {
        {.gptq = true, .bits = 4, .group = 16, .scales = ATOM_F16},
        {.gptq = true, .bits = 4, .group = 16, .scales = ATOM_F16, .ordered = true, .group_of = dealt},
        {.gptq = true, .bits = 4, .group = 16, .scales = ATOM_F16, .ordered = true, .group_of = dealt_apart},
        {.bits = 4, .group = 16, .scales = ATOM_F16, .ordered = true, .asymmetric = true, .group_of = dealt},
        {.bits = 4, .group = 32, .scales = ATOM_F32},
        {.bits = 8, .bytes = true, .scales = ATOM_BF16},
        {.bits = 8, .bytes = true, .scales = ATOM_BF16, .acts = true},
    };
    static float a[N_TOKENS * VOCAB], b[N_TOKENS * VOCAB];
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct foreign f = all[i];
        struct atom_config cfg = shape;
        float most = 0, worst = 0;
        foreign_layer(&f, &cfg);
        assert_int_equal(cfg.scheme.abits, f.acts ? 8 : 16);
        run_model(&f, &cfg, FOREIGN, a);
        run_model(&f, &cfg, f.bytes ? OURS : FLOATS, b);
        for (int j = 0; j < N_TOKENS * VOCAB; j++) {
            most = fmaxf(most, fabsf(b[j]));
            worst = fmaxf(worst, fabsf(a[j] - b[j]));
        }
        if (!(worst <= most * (f.bytes ? 0 : 0.01f)))
            fail_msg("model %zu: logits differ by %g of %g", i, (double)worst, (double)most);
        foreign_free(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gptq),
        cmocka_unit_test(gptq_orders),
        cmocka_unit_test(orders_that_differ),
        cmocka_unit_test(compressed),
        cmocka_unit_test(scales_no_half_holds),
        cmocka_unit_test(any_size),
        cmocka_unit_test(tensors_are_checked),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(leftovers_are_taken),
        cmocka_unit_test(biases),
        cmocka_unit_test(floats_among_them),
        cmocka_unit_test(models_agree),
    };
    return cmocka_run_group_tests_name("foreign", tests, start, end);
}
