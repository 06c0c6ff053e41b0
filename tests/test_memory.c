/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the loading layer fails once: the call must say so, change nothing and leak nothing. */
#include "failing_malloc.h"

#include "base/file.h"
#include "eval/task_examples.h"
#include "model/model.h"

#include <sys/stat.h>

static enum atom_status load_config(const char *dir, struct atom_error *err)
{
    struct atom_config c;
    (void)dir;
    return atom_config_load("models/tiny", &c, err);
}

static enum atom_status quantize_config(const char *dir, struct atom_error *err)
{
    struct atom_scheme s;
    char *text = NULL;
    (void)dir;
    atom_scheme_named("paper", &s, NULL);
    enum atom_status status = atom_config_quantized_text("models/tiny", &s, &text, err);
    free(text);
    return status;
}

static enum atom_status open_tensors(const char *dir, struct atom_error *err)
{
    struct atom_tensors *t = NULL;
    enum atom_status status = atom_tensors_open(dir, &t, err);
    atom_tensors_close(t);
    return status;
}

static enum atom_status write_tensors(const char *dir, struct atom_error *err)
{
    static const float zeros[4];
    const struct atom_tensor in[] = {
        {.name = "a", .dtype = ATOM_F32, .n_dims = 2, .dims = {2, 2}, .data = zeros, .n_bytes = 16},
        {.name = "b", .dtype = ATOM_U8, .n_dims = 1, .dims = {3}, .data = zeros, .n_bytes = 3},
    };
    return atom_safetensors_write(in_dir(dir, "one"), in, 2, err);
}

static enum atom_status write_file(const char *dir, struct atom_error *err)
{
    return atom_file_write(in_dir(dir, "text"), "text", 4, err);
}

static enum atom_status copy_file(const char *dir, struct atom_error *err)
{
    return atom_file_copy("models/tiny/config.json", in_dir(dir, "copy"), err);
}

static enum atom_status replace_dir(const char *dir, struct atom_error *err)
{
    char from[1100], to[1100];
    snprintf(from, sizeof from, "%s/new", dir);
    snprintf(to, sizeof to, "%s/out", dir);
    mkdir(from, 0777);
    mkdir(to, 0777);
    return atom_dir_replace(from, to, err);
}

static struct atom_config tiny;
static struct atom_tensors *tensors; /* of models/tiny */

static enum atom_status load_layer(const char *dir, struct atom_error *err)
{
    const struct atom_layer_source src = {.cfg = &tiny, .tensors = tensors, .scheme = tiny.scheme};
    struct atom_layer layer;
    (void)dir;
    enum atom_status status = atom_layer_load(&atom_backend_cpu, &src, 0, &layer, err);
    if (!status)
        atom_layer_fini(&layer);
    return status;
}

static enum atom_status build_model(const char *dir, struct atom_error *err)
{
    struct atom_tensors *own = NULL;
    struct atom_model *m = NULL;
    enum atom_status status = atom_tensors_open(dir, &own, err);
    status = status ? status : atom_model_build(&tiny, own, NULL, &m, err);
    atom_model_close(m);
    return status;
}

static enum atom_status make_work(const char *dir, struct atom_error *err)
{
    struct atom_work *w = NULL;
    (void)dir;
    enum atom_status status = atom_model_work(&tiny, &atom_backend_cpu, 600, &w, err);
    atom_backend_cpu.work_free(w);
    return status;
}

static enum atom_status make_cache(const char *dir, struct atom_error *err)
{
    struct atom_kv *kv = NULL;
    (void)dir;
    enum atom_status status = atom_model_kv(&tiny, &tiny.scheme, &atom_backend_cpu, tiny.layers, 64, 1024, &kv, err);
    atom_backend_cpu.kv_free(kv);
    return status;
}

static enum atom_status parse_items(const char *dir, struct atom_error *err)
{
    static const char text[] = "{\"context\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": 1}\n"
                               "{\"context\": \"b\", \"choices\": [\" b\", \" c\"], \"gold\": 0}\n";
    const struct atom_task_file file = {{NULL, text, sizeof text - 1}, {0}, NULL};
    struct atom_task_items items = {0};
    (void)dir;
    enum atom_status status = atom_task_items_parse(&file, atom_task_format(0), &items, err);
    atom_task_items_fini(&items);
    return status;
}

/* Records of a data set with labels apart, and examples in front of what they become. */
static enum atom_status make_items(const struct atom_task_file *file, const char *name, struct atom_error *err)
{
    int format = 0;
    while (strcmp(atom_task_format(format)->name, name) != 0)
        format++;
    struct atom_task_items items = {0};
    enum atom_status status = atom_task_items_parse(file, atom_task_format(format), &items, err);
    const struct atom_task_examples examples = {atom_task_format(format), &items, 1, 1234};
    status = status ? status : atom_task_put_fronts(&items, items.n, &examples, err);
    atom_task_items_fini(&items);
    return status;
}

static enum atom_status read_piqa(const char *dir, struct atom_error *err)
{
    static const char text[] = "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}\n"
                               "{\"goal\": \"d\", \"sol1\": \"e\", \"sol2\": \"f\"}\n";
    const struct atom_task_file file = {{"p", text, sizeof text - 1}, {"l", "0\n1\n", 4}, NULL};
    (void)dir;
    return make_items(&file, "piqa", err);
}

static json_t *hellaswag; /* a record: read from JSON, whose parser does not outlive a failure in names that long */

static enum atom_status read_hellaswag(const char *dir, struct atom_error *err)
{
    struct atom_task_record in = {.json = hellaswag, .line = 1, .kept = json_array(), .err = err};
    json_t *item = atom_hellaswag_read(&in);
    enum atom_status status = item || in.status ? in.status : ATOM_ERR_NOMEM;
    (void)dir;
    json_decref(item);
    json_decref(in.kept);
    return status;
}

static enum atom_status read_mmlu(const char *dir, struct atom_error *err)
{
    static const char text[] = "a,1,2,3,4,A\n\"b, c\",1,2,3,4,D\n";
    const struct atom_task_file file = {{NULL, text, sizeof text - 1}, {0}, "us_law"};
    (void)dir;
    return make_items(&file, "mmlu", err);
}

static void test_all(void **state)
{
#ifdef SANITIZED
    skip_because("a sanitizer has its own malloc");
#endif
    (void)state;
    char *dir = make_dir();
    fail_each(dir, load_config, true);
    fail_each(dir, quantize_config, true);
    fail_each(dir, write_tensors, false);
    put_text(dir, "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one\",\"b\":\"one\"}}");
    fail_each(dir, open_tensors, true);
    fail_each("models/tiny", open_tensors, true);
    fail_each(dir, write_file, false);
    fail_each(dir, copy_file, false);
    fail_each(dir, replace_dir, false);
    fail_each(dir, parse_items, true);
    fail_each(dir, read_piqa, true);
    hellaswag = json_pack("{s:s, s:s, s:s, s:i, s:[s, s, s, s]}", "activity_label", "a", "ctx_a", "b [c]", "ctx_b", "d",
                          "label", 1, "endings", "e", "f [title]", "g", "h");
    fail_each(dir, read_hellaswag, true);
    json_decref(hellaswag);
    fail_each(dir, read_mmlu, false);
    struct atom_error err = {0};
    assert_ok(atom_config_load("models/tiny", &tiny, &err), &err);
    assert_ok(atom_tensors_open("models/tiny", &tensors, &err), &err);
    fail_each(dir, load_layer, false);
    fail_each(dir, make_work, false);
    fail_each(dir, make_cache, false);
    atom_tensors_close(tensors);
    fail_each("models/tiny", build_model, true);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
