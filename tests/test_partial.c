/* SPDX-License-Identifier: Apache-2.0 */
/* OUT.partial: resume after every kind of end, among them a crash or a full disk at each single system call. */
#include "helpers.h"

#include "quant/fingerprint.h"
#include "quant/partial.h"
#include "quant/partial_state.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { LAYERS = 3 };

/* ---- system calls that fail, or end the process, at the n-th ------------------------------------------------------
 */

static int countdown = -1; /* calls until it happens; -1: never */
static bool crash;

static bool happens(void)
{
    if (countdown < 0 || countdown-- > 0)
        return false;
    if (crash)
        _exit(9);
    errno = ENOSPC;
    return true;
}

#define REAL(type, name) ((type)dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *data, size_t n)
{
    return happens() ? -1 : REAL(ssize_t(*)(int, const void *, size_t), "write")(fd, data, n);
}

int fsync(int fd) { return happens() ? -1 : REAL(int (*)(int), "fsync")(fd); }

int rename(const char *from, const char *to)
{
    return happens() ? -1 : REAL(int (*)(const char *, const char *), "rename")(from, to);
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    return happens()
               ? -1
               : REAL(int (*)(int, const char *, int, const char *, unsigned), "renameat2")(a, from, b, to, flags);
}

int unlinkat(int fd, const char *name, int flags)
{
    if (crash)
        happens();
    return REAL(int (*)(int, const char *, int), "unlinkat")(fd, name, flags);
}

/* ---- a model and its run ------------------------------------------------------------------------------------------
 */

static struct atom_error err;
static char *dir;
static char options[512];
static struct atom_scheme scheme;
static struct atom_partial_run run;
static char model[1200], calib[1200], out[1200], partial[1200];

static int fresh(void **state)
{
    (void)state;
    dir = make_dir();
    countdown = -1;
    crash = false;
    memset(&err, 0, sizeof err);
    snprintf(model, sizeof model, "%s/model", dir);
    snprintf(calib, sizeof calib, "%s/calib.txt", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    snprintf(partial, sizeof partial, "%s/out.partial", dir);
    assert_int_equal(mkdir(model, 0700), 0);
    put_text(dir, "calib.txt", "some text to calibrate with");
    put_text(model, "config.json",
             "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 8,"
             "\"intermediate_size\": 8, \"num_hidden_layers\": 3, \"num_attention_heads\": 2, \"hidden_act\": \"silu\","
             "\"vocab_size\": 16, \"max_position_embeddings\": 32, \"rms_norm_eps\": 1e-5}");
    put_text(model, "tokenizer.json", "{}");
    put_text(model, "model.safetensors", "not looked into here");
    assert_ok(atom_scheme_named("paper", &scheme, &err), &err);
    atom_fingerprint_options(&scheme, 4, 64, options);
    run = (struct atom_partial_run){model, calib, out, options, LAYERS, false, false, NULL};
    return 0;
}

static int gone(void **state)
{
    (void)state;
    remove_dir(dir);
    return 0;
}

static struct atom_partial *open_run(void)
{
    struct atom_partial *p = NULL;
    memset(&err, 0, sizeof err);
    assert_ok(atom_partial_open(&run, &p, &err), &err);
    return p;
}

static enum atom_status put(struct atom_partial *p, int layer)
{
    char name[64];
    float data[5] = {(float)layer, 1, 2, 3, 4};
    snprintf(name, sizeof name, "model.layers.%d.x", layer);
    const struct atom_tensor t = {
        .name = name, .dtype = ATOM_F32, .n_dims = 1, .dims = {5}, .data = data, .n_bytes = sizeof data, .file = ""};
    const struct atom_report_line line = {name, 0.25, 4.5, 0.125};
    return atom_partial_put_layer(p, layer, &t, 1, &line, 1, &err);
}

static enum atom_status finish(struct atom_partial *p)
{
    const int8_t data[3] = {1, 2, 3};
    const struct atom_tensor t = {.name = "lm_head.qweight",
                                  .dtype = ATOM_I8,
                                  .n_dims = 1,
                                  .dims = {3},
                                  .data = data,
                                  .n_bytes = sizeof data,
                                  .file = ""};
    return atom_partial_finish(p, &scheme, &t, 1, NULL, 0, &err);
}

/* Everything from where it stands; the first failure. */
static enum atom_status do_all(void)
{
    struct atom_partial *p = NULL;
    enum atom_status st = atom_partial_open(&run, &p, &err);
    for (int i = st ? LAYERS : atom_partial_next(p); i < LAYERS && !st; i++)
        st = put(p, i);
    if (!st)
        st = finish(p);
    atom_partial_close(p);
    return st;
}

static bool is_there(const char *where, const char *name) { return access(in_dir(where, name), F_OK) == 0; }

/* OUT is the finished checkpoint, complete and alone. */
static void assert_finished(void)
{
    struct atom_tensors *t = NULL;
    struct atom_error e = {0};
    assert_ok(atom_tensors_open(out, &t, &e), &e);
    assert_int_equal(atom_tensors_count(t), LAYERS + 1);
    for (int i = 0; i < LAYERS; i++) {
        char name[64];
        float x;
        snprintf(name, sizeof name, "model.layers.%d.x", i);
        const struct atom_tensor *tensor = atom_tensors_find(t, name);
        assert_non_null(tensor);
        memcpy(&x, tensor->data, sizeof x);
        assert_true(x == (float)i);
    }
    atom_tensors_close(t);
    assert_true(is_there(out, "model-00004-of-00004.safetensors") && is_there(out, "tokenizer.json"));
    assert_true(is_there(out, "config.json") && is_there(out, "atom_report.json"));
    assert_false(is_there(out, "atom_state.json"));
    assert_int_not_equal(access(partial, F_OK), 0);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------
 */

static void a_run_makes_a_checkpoint(void **state)
{
    (void)state;
    assert_ok(do_all(), &err);
    assert_finished();
    json_error_t why;
    json_t *report = json_load_file(in_dir(out, "atom_report.json"), 0, &why);
    json_t *index = json_load_file(in_dir(out, "model.safetensors.index.json"), 0, &why);
    json_t *config = json_load_file(in_dir(out, "config.json"), 0, &why);
    assert_int_equal(json_array_size(json_object_get(report, "linears")), LAYERS);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")),
                     LAYERS * 20 + 3);
    assert_non_null(json_object_get(config, "quantization_config"));
    json_decref(report);
    json_decref(index);
    json_decref(config);
}

static void a_run_resumes(void **state)
{
    (void)state;
    struct atom_partial *p = open_run();
    assert_int_equal(atom_partial_next(p), 0);
    assert_ok(put(p, 0), &err);
    assert_ok(put(p, 1), &err);
    atom_partial_close(p);
    put_text(partial, "model-00003-of-00004.safetensors.tmp", "half of a lay");
    put_text(partial, "atom_state.json.tmp", "{\"vers");
    put_text(partial, "model-00003-of-00004.safetensors", "renamed, but not counted yet");
    run.resume = true;
    p = open_run();
    assert_int_equal(atom_partial_next(p), 2);
    assert_false(is_there(partial, "model-00003-of-00004.safetensors.tmp"));
    assert_false(is_there(partial, "model-00003-of-00004.safetensors"));
    struct atom_tensors *t = NULL;
    assert_ok(atom_tensors_open(atom_partial_dir(p), &t, &err), &err);
    assert_int_equal(atom_tensors_count(t), 2);
    atom_tensors_close(t);
    assert_fails(put(p, 1), &err, ATOM_ERR_INVALID, "layer 1 is not the next");
    memset(&err, 0, sizeof err);
    assert_fails(finish(p), &err, ATOM_ERR_INVALID, "2 of 3 layers");
    memset(&err, 0, sizeof err);
    atom_partial_close(p);
    assert_ok(do_all(), &err);
    assert_finished();
}

static void a_lost_layer_is_made_again(void **state)
{
    (void)state;
    struct atom_partial *p = open_run();
    for (int i = 0; i < LAYERS; i++)
        assert_ok(put(p, i), &err);
    atom_partial_close(p);
    FILE *f = fopen(in_dir(partial, "model-00003-of-00004.safetensors"), "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -1, SEEK_END), 0);
    assert_int_equal(putc(99, f), 99);
    assert_int_equal(fclose(f), 0);
    run.resume = true;
    p = open_run();
    assert_int_equal(atom_partial_next(p), 2);
    atom_partial_close(p);
    assert_int_equal(truncate(in_dir(partial, "model-00002-of-00004.safetensors"), 10), 0);
    p = open_run();
    assert_int_equal(atom_partial_next(p), 1);
    atom_partial_close(p);
    assert_ok(do_all(), &err);
    assert_finished();
}

static void without_resume_it_starts_anew(void **state)
{
    (void)state;
    struct atom_partial *p = open_run();
    assert_ok(put(p, 0), &err);
    atom_partial_close(p);
    p = open_run();
    assert_int_equal(atom_partial_next(p), 0);
    assert_false(is_there(partial, "model-00001-of-00004.safetensors"));
    atom_partial_close(p);
}

static void refuse(const char *words)
{
    struct atom_partial *p = NULL;
    memset(&err, 0, sizeof err);
    assert_fails(atom_partial_open(&run, &p, &err), &err, ATOM_ERR_INVALID, words);
    assert_null(p);
}

static void other_inputs_are_refused(void **state)
{
    (void)state;
    struct atom_partial *p = open_run();
    assert_ok(put(p, 0), &err);
    atom_partial_close(p);
    run.resume = true;
    run.options = "other options";
    refuse("begun with other options (");
    put_text(dir, "calib.txt", "some text to calibrate With");
    refuse("another calibration text, other options");
    run.options = options;
    refuse("begun with another calibration text");
    put_text(dir, "calib.txt", "some text to calibrate with");
    put_text(model, "model.safetensors", "not looked into herE");
    refuse("begun with another model");
    put_text(model, "model.safetensors", "not looked into here");
    run.layers++;
    refuse("begun with another model");
    run.layers--;
    p = open_run();
    assert_int_equal(atom_partial_next(p), 1);
    refuse("another process is at work"); /* the lock is the open directory's, so one process will do */
    atom_partial_close(p);
}

static void a_spoilt_state_is_refused(void **state)
{
    (void)state;
    struct atom_partial *p = open_run();
    atom_partial_close(p);
    run.resume = true;
    static const char *const texts[] = {"{\"version\": 1", "[]", "{\"version\": 2}",
                                        "{\"version\": 1, \"model\": \"\", \"calibration\": \"\", \"options\": \"\", "
                                        "\"layers\": 3, \"done\": [{\"file\": \"../x\", \"bytes\": 1, "
                                        "\"tensor_bytes\": 1, \"tensors\": [], \"report\": []}]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put_text(partial, "atom_state.json", texts[i]);
        memset(&err, 0, sizeof err);
        assert_fails(atom_partial_open(&run, &p, &err), &err, ATOM_ERR_FORMAT, "atom_state.json");
    }
    run.resume = false;
    memset(&err, 0, sizeof err);
    assert_ok(do_all(), &err);
    assert_finished();
}

static void an_existing_out_is_refused_or_exchanged(void **state)
{
    (void)state;
    assert_int_equal(mkdir(out, 0700), 0);
    put_text(out, "config.json", "{}");
    put_text(out, "old.txt", "old");
    refuse("is there already");
    assert_int_not_equal(access(partial, F_OK), 0);
    run.overwrite = true;
    memset(&err, 0, sizeof err);
    assert_ok(do_all(), &err);
    assert_finished();
    assert_false(is_there(out, "old.txt"));
}

static void an_out_that_came_meanwhile_is_kept(void **state)
{
    (void)state;
    struct atom_partial *p = open_run();
    for (int i = 0; i < LAYERS; i++)
        assert_ok(put(p, i), &err);
    assert_int_equal(mkdir(out, 0700), 0);
    assert_fails(finish(p), &err, ATOM_ERR_INVALID, "is there already");
    assert_int_equal(rmdir(out), 0);
    assert_ok(finish(p), &err);
    atom_partial_close(p);
    assert_finished();
}

static void what_is_no_model_is_never_overwritten(void **state)
{
    (void)state;
    run.overwrite = true;
    put_text(dir, "out", "a file");
    refuse("not a directory");
    assert_int_equal(unlink(out), 0);
    assert_int_equal(mkdir(out, 0700), 0);
    put_text(out, "letter.txt", "dear");
    refuse("not a model's directory");
    put_text(out, "config.json", "{}");
    assert_int_equal(mkdir(in_dir(out, "photos"), 0700), 0);
    refuse("not a model's directory");
    run.out = model;
    refuse("the model itself");
    run.out = out;
    run.overwrite = false;
    assert_int_equal(rename(out, in_dir(dir, "elsewhere")), 0);
    assert_int_equal(mkdir(partial, 0700), 0);
    put_text(partial, "letter.txt", "dear");
    refuse("not an unfinished run");
    assert_true(is_there(partial, "letter.txt"));
}

static void slashes_at_the_end_are_fine(void **state)
{
    (void)state;
    char name[1300];
    snprintf(name, sizeof name, "%s//", out);
    run.out = name;
    assert_ok(do_all(), &err);
    assert_finished();
}

static void a_full_disk_can_be_resumed(void **state)
{
    (void)state;
    int failures = 0;
    for (int at = 0;; at++) {
        run.resume = at % 2;
        countdown = at;
        memset(&err, 0, sizeof err);
        enum atom_status st = do_all();
        bool reached = countdown < 0;
        countdown = -1;
        if (!reached) {
            assert_ok(st, &err);
            break;
        }
        if (st) {
            failures++;
            if (st != ATOM_ERR_NOSPACE || !strstr(err.message, dir))
                fail_msg("call %d: %s: %s", at, atom_status_name(st), err.message);
        }
        run.resume = true;
        memset(&err, 0, sizeof err);
        if (access(out, F_OK))
            assert_ok(do_all(), &err);
        assert_finished();
        assert_int_equal(rename(out, in_dir(dir, "done")), 0);
        char command[1300];
        snprintf(command, sizeof command, "rm -rf '%s/done'", dir);
        assert_int_equal(system(command), 0);
    }
    assert_true(failures > 30);
}

/* The same call after a failure, within one run. */
static void a_layer_can_be_tried_again(void **state)
{
    (void)state;
    for (int at = 0, more = 1; more; at++) {
        run.resume = false;
        struct atom_partial *p = open_run();
        countdown = at;
        more = put(p, 0) != ATOM_OK;
        countdown = -1;
        memset(&err, 0, sizeof err);
        if (more) {
            assert_int_equal(atom_partial_next(p), 0);
            assert_false(is_there(partial, "model-00001-of-00004.safetensors"));
            assert_ok(put(p, 0), &err);
        }
        assert_int_equal(atom_partial_next(p), 1);
        atom_partial_close(p);
    }
}

static void a_crash_can_be_resumed(void **state)
{
    (void)state;
    char command[1300];
    snprintf(command, sizeof command, "rm -rf '%s/out'", dir);
    for (int at = 0;; at++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            crash = true;
            countdown = at;
            _exit(do_all() ? 1 : 0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0));
        if (access(out, F_OK)) {
            run.resume = true;
            memset(&err, 0, sizeof err);
            assert_ok(do_all(), &err);
            assert_finished();
        } else {
            unlink(in_dir(out, "atom_state.json"));
            assert_finished();
        }
        assert_int_equal(system(command), 0);
        if (WEXITSTATUS(status) == 0)
            break;
    }
}

static void hashes_see_everything(void **state)
{
    (void)state;
    uint8_t data[200];
    for (int i = 0; i < 200; i++)
        data[i] = (uint8_t)i;
    uint64_t whole = atom_fingerprint(0, data, 200);
    for (size_t i = 0; i < 200; i++) {
        data[i] ^= 0x80;
        assert_true(atom_fingerprint(0, data, 200) != whole);
        data[i] ^= 0x80;
        assert_true(atom_fingerprint(0, data, i) != whole);
    }
    assert_true(atom_fingerprint(1, data, 200) != whole && atom_fingerprint(0, data, 200) == whole);
    uint64_t a = 0, b = 0;
    assert_ok(atom_fingerprint_model(model, &a, &err), &err);
    put_text(model, "extra.safetensors", "");
    assert_ok(atom_fingerprint_model(model, &b, &err), &err);
    assert_true(a != b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_run_makes_a_checkpoint, fresh, gone),
        cmocka_unit_test_setup_teardown(a_run_resumes, fresh, gone),
        cmocka_unit_test_setup_teardown(a_lost_layer_is_made_again, fresh, gone),
        cmocka_unit_test_setup_teardown(without_resume_it_starts_anew, fresh, gone),
        cmocka_unit_test_setup_teardown(other_inputs_are_refused, fresh, gone),
        cmocka_unit_test_setup_teardown(a_spoilt_state_is_refused, fresh, gone),
        cmocka_unit_test_setup_teardown(an_existing_out_is_refused_or_exchanged, fresh, gone),
        cmocka_unit_test_setup_teardown(an_out_that_came_meanwhile_is_kept, fresh, gone),
        cmocka_unit_test_setup_teardown(what_is_no_model_is_never_overwritten, fresh, gone),
        cmocka_unit_test_setup_teardown(slashes_at_the_end_are_fine, fresh, gone),
        cmocka_unit_test_setup_teardown(a_full_disk_can_be_resumed, fresh, gone),
        cmocka_unit_test_setup_teardown(a_layer_can_be_tried_again, fresh, gone),
        cmocka_unit_test_setup_teardown(a_crash_can_be_resumed, fresh, gone),
        cmocka_unit_test_setup_teardown(hashes_see_everything, fresh, gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
