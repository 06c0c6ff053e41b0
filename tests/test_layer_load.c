/* SPDX-License-Identifier: Apache-2.0 */
/* What a quantized checkpoint is told whose tensors are not what its layers need. */
#include "llama.h"

#include "model/layer.h"
#include "model/tensor_names.h"

#include <math.h>

static struct atom_error err;
static char *home;
static struct atom_config cfg;
static struct atom_tensors *sound;

static void make_checkpoint(enum atom_format format, int outlier_bits)
{
    char dir[1024], calib[1024], out[1024];
    const struct llama like = {
        .hidden = 48, .intermediate = 80, .layers = 1, .heads = 2, .kv_heads = 1, .head_dim = 16, .dtype = ATOM_F32};
    home = make_dir();
    put_calibration(home);
    snprintf(dir, sizeof dir, "%s/float", home);
    snprintf(calib, sizeof calib, "%s/calib.txt", home);
    snprintf(out, sizeof out, "%s/out", home);
    assert_int_equal(mkdir(dir, 0777), 0);
    put_llama(dir, &like);
    struct atom_quantize_options o = quick_options(dir, out, calib);
    o.samples = 1;
    o.window = 24;
    o.scheme.format = format;
    o.scheme.outlier_bits = outlier_bits;
    if (atom_format_group(format))
        o.scheme.group = atom_format_group(format);
    assert_ok(atom_quantize(&o, &err), &err);
    assert_ok(atom_config_load(out, &cfg, &err), &err);
    assert_ok(atom_tensors_open(out, &sound, &err), &err);
    assert_ok(atom_tensors_known(&cfg, sound, &err), &err);
}

static void remove_checkpoint(void)
{
    atom_tensors_close(sound);
    remove_dir(home);
}

static int open_checkpoint(void **state)
{
    (void)state;
    assert_ok(atom_runtime_init(NULL, &err), &err);
    make_checkpoint(ATOM_FORMAT_INT, 8);
    return 0;
}

static int close_checkpoint(void **state)
{
    (void)state;
    remove_checkpoint();
    atom_runtime_fini();
    return 0;
}

static enum atom_status load(const struct atom_tensors *t)
{
    const struct atom_layer_source src = {.cfg = &cfg, .tensors = t, .scheme = cfg.scheme};
    struct atom_layer layer;
    memset(&err, 0, sizeof err);
    enum atom_status st = atom_layer_load(&atom_backend_cpu, &src, 0, &layer, &err);
    if (!st)
        atom_layer_fini(&layer);
    return st;
}

typedef void spoil_fn(struct atom_tensor *t, uint8_t *data);

/* The checkpoint with one tensor spoiled is refused with these words and that name. */
static void refused(const char *name, spoil_fn *spoil, enum atom_status code, const char *words)
{
    struct atom_tensor all[64];
    struct atom_tensors *t;
    uint8_t *data = NULL;
    size_t n = atom_tensors_count(sound);
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++) {
        all[i] = *atom_tensors_at(sound, i);
        if (strcmp(all[i].name, name) != 0)
            continue;
        data = malloc(all[i].n_bytes);
        assert_non_null(data);
        memcpy(data, all[i].data, all[i].n_bytes);
        all[i].data = data;
        spoil(&all[i], data);
    }
    assert_non_null(data);
    assert_ok(atom_tensors_wrap(all, n, &t, &err), &err);
    assert_fails(load(t), &err, code, words);
    assert_non_null(strstr(err.message, name));
    atom_tensors_close(t);
    free(data);
}

static void gone(struct atom_tensor *t, uint8_t *data) { (void)data, t->name = "elsewhere"; }
static void other_type(struct atom_tensor *t, uint8_t *data) { (void)data, t->dtype = ATOM_BF16; }
static void other_rows(struct atom_tensor *t, uint8_t *data) { (void)data, t->dims[0]--; }
static void one_more_dim(struct atom_tensor *t, uint8_t *data) { (void)data, t->dims[t->n_dims++] = 1; }
static void infinite(struct atom_tensor *t, uint8_t *data) { memcpy(data + t->n_bytes - 2, "\0\x7c", 2); }
static void twice(struct atom_tensor *t, uint8_t *data) { memcpy(data, data + t->n_bytes - 4, 4); }
static void negative(struct atom_tensor *t, uint8_t *data) { memset(data + t->n_bytes - 4, 0xff, 4); }
static void too_large(struct atom_tensor *t, uint8_t *data) { memcpy(data, &(int32_t){(int32_t)t->dims[0]}, 4); }

static void tensors_are_checked(void **state)
{
    static const char *const parts[] = {"self_attn.k_proj.qweight",
                                        "self_attn.o_proj.scales",
                                        "mlp.gate_proj.outlier_qweight",
                                        "mlp.down_proj.outlier_scales",
                                        "mlp_in.order",
                                        "input_layernorm.weight"};
    (void)state;
    assert_ok(load(sound), &err);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.0.%s", parts[i]);
        refused(name, gone, ATOM_ERR_FORMAT, "is missing");
        refused(name, other_rows, ATOM_ERR_FORMAT, "has shape");
        refused(name, one_more_dim, ATOM_ERR_FORMAT, "has shape");
        if (i < 5) /* norms are of any float */
            refused(name, other_type, ATOM_ERR_FORMAT, "has dtype");
    }
}

static void values_are_checked(void **state)
{
    (void)state;
    refused("model.layers.0.self_attn.v_proj.scales", infinite, ATOM_ERR_NUMERIC, "must be finite");
    refused("model.layers.0.mlp.up_proj.outlier_scales", infinite, ATOM_ERR_NUMERIC, "must be finite");
    refused("model.layers.0.attn_in.order", twice, ATOM_ERR_FORMAT, "seen before");
    refused("model.layers.0.o_in.order", negative, ATOM_ERR_FORMAT, "is -1");
    refused("model.layers.0.down_in.order", too_large, ATOM_ERR_FORMAT, "no order of 80 channels");
}

/* ---- formats that are simulated ---------------------------------------------------------------------------------- */

static void last_is_7f(struct atom_tensor *t, uint8_t *data) { data[t->n_bytes - 1] = 0x7f; }
static void last_is_ff(struct atom_tensor *t, uint8_t *data) { data[t->n_bytes - 1] = 0xff; }
static void last_is_80(struct atom_tensor *t, uint8_t *data) { data[t->n_bytes - 1] = 0x80; }
static void minus_one(struct atom_tensor *t, uint8_t *data) { (void)t, memcpy(data, &(float){-1}, 4); }
static void no_number(struct atom_tensor *t, uint8_t *data) { (void)t, memcpy(data, &(float){NAN}, 4); }

/* Each part gone, cut or of another type; what it may not hold is refused too. */
static void refused_part(const char *part, spoil_fn *spoil, enum atom_dtype dtype)
{
    static int turn;
    char name[96];
    snprintf(name, sizeof name, "model.layers.0.mlp.up_proj.%s", part);
    assert_int_equal(atom_tensors_find(sound, name)->dtype, dtype);
    switch (turn++ % 3) { /* loading takes its time */
    case 0:
        refused(name, gone, ATOM_ERR_FORMAT, "is missing");
        break;
    case 1:
        refused(name, other_rows, ATOM_ERR_FORMAT, "has shape");
        break;
    default:
        refused(name, other_type, ATOM_ERR_FORMAT, "has dtype");
    }
    if (spoil)
        refused(name, spoil, ATOM_ERR_NUMERIC, "");
}

static void float_formats_are_checked(void **state)
{
    static const struct {
        enum atom_format format;
        int outlier_bits;
        enum atom_dtype scales;
        spoil_fn *spoil;
    } rows[] = {{ATOM_FORMAT_INT, 16, ATOM_F16, infinite},
                {ATOM_FORMAT_FP4, 8, ATOM_F16, infinite},
                {ATOM_FORMAT_NVFP4, 8, ATOM_U8, last_is_7f},
                {ATOM_FORMAT_NVFP4, 16, ATOM_U8, last_is_80},
                {ATOM_FORMAT_MXFP4, 8, ATOM_U8, last_is_ff}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        remove_checkpoint();
        make_checkpoint(rows[i].format, rows[i].outlier_bits);
        assert_true(cfg.scheme.format == rows[i].format && cfg.scheme.outlier_bits == rows[i].outlier_bits);
        assert_ok(load(sound), &err);
        refused_part("qweight", NULL, ATOM_U8);
        refused_part("scales", rows[i].spoil, rows[i].scales);
        if (rows[i].outlier_bits == 16) {
            refused_part("outlier_weight", infinite, ATOM_F16);
            assert_null(atom_tensors_find(sound, "model.layers.0.mlp.up_proj.outlier_qweight"));
        } else {
            refused_part("outlier_qweight", last_is_ff, ATOM_U8);
            refused_part("outlier_scales", infinite, ATOM_F16);
        }
        if (rows[i].format == ATOM_FORMAT_NVFP4) {
            refused_part("tensor_scale", minus_one, ATOM_F32);
            refused("model.layers.0.mlp.up_proj.tensor_scale", no_number, ATOM_ERR_NUMERIC, "must be finite");
        } else {
            assert_null(atom_tensors_find(sound, "model.layers.0.mlp.up_proj.tensor_scale"));
        }
    }
    /* In a checkpoint of another format, such tensors are unknown. */
    cfg.scheme.format = ATOM_FORMAT_NVFP4;
    cfg.scheme.outlier_bits = 16;
    assert_int_equal(atom_tensors_known(&cfg, sound, NULL), ATOM_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tensors_are_checked), cmocka_unit_test(values_are_checked),
                                       cmocka_unit_test(float_formats_are_checked)};
    return cmocka_run_group_tests_name("layer_load", tests, open_checkpoint, close_checkpoint);
}
