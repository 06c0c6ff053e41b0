/* SPDX-License-Identifier: Apache-2.0 */
/* What a log of items must agree in with the run that goes on with it. */
#include "eval/task_formats.h"
#include "quant/fingerprint.h"

#include <inttypes.h>
#include <string.h>

static json_t *hash_json(uint64_t hash)
{
    char text[32];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    return json_string(text);
}

static json_t *text_json(const struct atom_task_text *text)
{
    return text->text ? hash_json(atom_fingerprint(0, text->text, text->n_bytes)) : json_null();
}

/* Of all tiers one alone has bits of its own. */
static const char *arithmetic(void) { return strcmp(atom_runtime_cpu(), "avx512bf16") == 0 ? "avx512bf16" : "exact"; }

enum atom_status atom_task_signature(const char *dir, const struct atom_task_file *file,
                                     const struct atom_task_options *opt, char **json, struct atom_error *err)
{
    const struct atom_task_format *format = atom_task_format(opt->format);
    const struct atom_task_file none = {0}, *examples = opt->examples ? opt->examples : &none;
    uint64_t model;
    if (!format)
        return atom_fail(err, ATOM_ERR_INVALID, "format %d: there is none", opt->format);
    enum atom_status st = atom_fingerprint_model(dir, &model, err);
    if (st)
        return st;
    json_t *o = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:s, s:s?, s:i, s:o, s:o, s:s?, s:I, s:i, s:b}", "version", atom_version(),
        "arithmetic", arithmetic(), "model", hash_json(model), "items", text_json(&file->records), "labels",
        text_json(&file->labels), "format", format->name, "subject", file->subject, "few_shot", opt->n_examples,
        "examples", text_json(&examples->records), "example_labels", text_json(&examples->labels), "example_subject",
        examples->subject, "seed", (json_int_t)opt->seed, "limit", opt->limit, "cut", opt->cut);
    char *text = o ? json_dumps(o, 0) : NULL;
    json_decref(o);
    if (!text)
        return atom_fail_nomem(err, 1024);
    *json = text;
    return ATOM_OK;
}
