/* SPDX-License-Identifier: Apache-2.0 */
/* What a picture of a checkpoint is drawn from: orders, channel sizes, shares, errors. */
#include "llama.h"

#include "eval/portrait.h"

static struct atom_error err;
static char *home;
static char calib[1024];

static const struct llama odd = {
    .hidden = 40, .intermediate = 54, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 24, .dtype = ATOM_BF16};

static int start(void **state)
{
    (void)state;
    home = make_dir();
    assert_ok(atom_runtime_init(NULL, &err), &err);
    put_calibration(home);
    snprintf(calib, sizeof calib, "%s/calib.txt", home);
    assert_int_equal(mkdir(in_dir(home, "odd"), 0777), 0);
    put_llama(in_dir(home, "odd"), &odd);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    remove_dir(home);
    atom_runtime_fini();
    return 0;
}

static void paint(const char *name, const char *text, struct atom_portrait *p)
{
    char model[1024];
    snprintf(model, sizeof model, "%s/%s", home, name);
    const struct atom_inspect_plot_options opt = {.model = model, .calib = text, .samples = 2, .window = 48};
    assert_ok(atom_portrait_create(&opt, p, &err), &err);
    assert_string_equal(p->name, name);
}

static void quantize(const char *name, const struct atom_scheme *scheme)
{
    char out[1024], model[1024];
    snprintf(out, sizeof out, "%s/%s", home, name);
    snprintf(model, sizeof model, "%s/odd", home);
    struct atom_quantize_options o = {
        .model = model, .out = out, .calib = calib, .samples = 2, .window = 48, .scheme = *scheme, .fit = true};
    assert_ok(atom_quantize(&o, &err), &err);
}

/* The order is a permutation, and the share is what its last channels have. */
static void check_site(const struct atom_site_portrait *s)
{
    bool seen[512] = {false};
    double all = 0, large = 0;
    for (int i = 0; i < s->k; i++) {
        assert_true(s->order[i] >= 0 && s->order[i] < s->k && !seen[s->order[i]]);
        seen[s->order[i]] = true;
        double e = s->rms[s->order[i]] * s->rms[s->order[i]];
        all += e;
        large += i >= s->k - s->outliers ? e : 0;
    }
    assert_true(fabs(s->outlier_share - large / all) < 1e-12);
    assert_true(s->outlier_share > (double)s->outliers / s->k && s->outlier_share < 1);
}

static void a_float_model_is_ranked_by_what_was_measured(void **state)
{
    (void)state;
    struct atom_portrait p;
    paint("odd", calib, &p);
    assert_true(p.measured && p.ordered && !p.errors);
    for (int i = 0; i < odd.layers * ATOM_N_SITES; i++) {
        const struct atom_site_portrait *s = &p.sites[i];
        assert_int_equal(s->k, atom_site_channels(&p.cfg, (enum atom_site_id)(i % ATOM_N_SITES)));
        assert_int_equal(s->outliers, odd.hidden / 4); /* as the recipes choose */
        check_site(s);
        for (int j = 1; j < s->k; j++)
            assert_true(s->rms[s->order[j]] >= s->rms[s->order[j - 1]]);
    }
    /* Before a norm's weights, all channels of a token have a mean square of one. */
    double mean = 0;
    for (int j = 0; j < odd.hidden; j++)
        mean += p.sites[ATOM_ATTN_IN].rms[j] * p.sites[ATOM_ATTN_IN].rms[j] / odd.hidden;
    assert_true(mean > 0.6 && mean < 1.6);
    atom_portrait_fini(&p);
}

/* At 8 bits the network is nearly the float one: channel for channel its sizes must be found where they were. */
static void a_quantized_model_shows_channels_in_their_own_places(void **state)
{
    (void)state;
    struct atom_portrait p, exact;
    struct atom_scheme s;
    assert_ok(atom_scheme_named("paper", &s, &err), &err);
    s.wbits = s.abits = s.kvbits = 8;
    s.act_clip = s.weight_clip = 1;
    s.outliers = 7;
    s.group = 16;
    quantize("w8", &s);
    paint("w8", calib, &p);
    paint("odd", calib, &exact);
    assert_true(p.measured && p.ordered && p.errors);
    for (int i = 0; i < odd.layers * ATOM_N_SITES; i++) {
        assert_int_equal(p.sites[i].outliers, 7);
        check_site(&p.sites[i]);
        for (int j = 0; j < p.sites[i].k; j++)
            assert_true(fabs(p.sites[i].rms[j] / exact.sites[i].rms[j] - 1) < 0.1);
        assert_memory_equal(p.sites[i].order, exact.sites[i].order, (size_t)p.sites[i].k * sizeof(int32_t));
    }
    for (int i = 0; i < odd.layers * ATOM_N_PROJ; i++)
        assert_true(p.errors[i] > 0 && p.errors[i] < 0.05);
    atom_portrait_fini(&exact);
    atom_portrait_fini(&p);
}

static void without_a_text_there_are_orders_and_errors(void **state)
{
    (void)state;
    struct atom_portrait p;
    struct atom_scheme s;
    assert_ok(atom_scheme_named("default", &s, &err), &err);
    s.outliers = -1;
    s.rotate = 0; /* heads of 24 */
    quantize("w4", &s);
    paint("w4", NULL, &p);
    assert_true(!p.measured && p.ordered && p.errors);
    assert_true(p.sites[0].order && !p.sites[0].rms && p.sites[0].outliers == 10);
    atom_portrait_fini(&p);
}

static void nothing_to_draw_is_an_error(void **state)
{
    (void)state;
    struct atom_portrait p;
    struct atom_scheme s;
    char model[1024];
    assert_ok(atom_scheme_named("paper", &s, &err), &err);
    s.wbits = s.abits = 16;
    quantize("kv4", &s);
    paint("kv4", calib, &p);
    assert_true(p.measured && !p.ordered && !p.errors && p.sites[0].outliers == 0);
    atom_portrait_fini(&p);
    snprintf(model, sizeof model, "%s/kv4", home);
    struct atom_inspect_plot_options opt = {.model = model};
    assert_fails(atom_portrait_create(&opt, &p, &err), &err, ATOM_ERR_INVALID, "neither errors nor outliers");
    memset(&err, 0, sizeof err);
    snprintf(model, sizeof model, "%s/odd", home);
    assert_fails(atom_portrait_create(&opt, &p, &err), &err, ATOM_ERR_INVALID, "a float model");
    memset(&err, 0, sizeof err);
}

/* Labels of a "set ytics (...)" line that lie in the y range the plot after it has. */
static int labels_in_range(const char *line)
{
    double from, to;
    int n = 0;
    const char *end = strchr(line, '\n'), *range = strstr(line, "set yrange [");
    assert_int_equal(sscanf(range, "set yrange [%lf:%lf]", &from, &to), 2);
    for (const char *at = strstr(line, "' "); at && at < end; at = strstr(at + 2, "' ")) {
        double mark = strtod(at + 2, NULL);
        n += mark >= from && mark <= to;
    }
    return n;
}

static void every_logarithmic_axis_has_two_labels(void **state)
{
    (void)state;
    double values[] = {1, 1};
    int32_t order[] = {0, 1};
    struct atom_site_portrait sites[ATOM_N_SITES];
    struct atom_portrait p = {.name = "x", .sites = sites, .measured = true, .text = "text"};
    p.cfg.layers = 1;
    for (int i = 0; i < ATOM_N_SITES; i++)
        sites[i] = (struct atom_site_portrait){.k = 2, .order = order, .rms = values};
    for (double low = 1e-7; low < 1e5; low *= 1.17)
        for (double wide = 1; wide < 1e5; wide *= 2.3) {
            char *script = NULL;
            size_t n_bytes;
            int axes = 0;
            values[0] = low;
            values[1] = low * wide;
            FILE *f = open_memstream(&script, &n_bytes);
            assert_non_null(f);
            atom_portrait_put(f, &p, 1);
            assert_int_equal(fclose(f), 0);
            for (const char *line = strstr(script, "set ytics ("); line;
                 line = strstr(line + 1, "set ytics ("), axes++) {
                int n = labels_in_range(line);
                if (n < 2 || n > 6)
                    fail_msg("%d labels for sizes of %g to %g: %.*s", n, values[0], values[1], 200, line);
            }
            assert_int_equal(axes, ATOM_N_SITES);
            free(script);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_float_model_is_ranked_by_what_was_measured),
        cmocka_unit_test(a_quantized_model_shows_channels_in_their_own_places),
        cmocka_unit_test(without_a_text_there_are_orders_and_errors),
        cmocka_unit_test(nothing_to_draw_is_an_error),
        cmocka_unit_test(every_logarithmic_axis_has_two_labels),
    };
    return cmocka_run_group_tests_name("portrait", tests, start, finish);
}
