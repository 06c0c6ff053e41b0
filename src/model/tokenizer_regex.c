/* SPDX-License-Identifier: Apache-2.0 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer_regex.h"

#include <pcre2.h>
#include <stdlib.h>

struct atom_regex {
    pcre2_code *code;
};

enum atom_status atom_regex_create(const struct atom_node *where, const char *pattern, size_t n,
                                   struct atom_regex **out, struct atom_error *err)
{
    struct atom_text text = {0};
    int code = 0;
    size_t offset = 0;
    struct atom_regex *re = calloc(1, sizeof *re);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    enum atom_status st = atom_regex_translate(where, pattern, n, &text, err);
    if (st)
        goto done;
    if (!re || !context || text.failed) {
        st = atom_fail_nomem(err, n);
        goto done;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    re->code = pcre2_compile((PCRE2_SPTR)text.data, text.n,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK | PCRE2_NEVER_BACKSLASH_C,
                             &code, &offset, context);
    if (!re->code) {
        PCRE2_UCHAR why[120] = "";
        pcre2_get_error_message(code, why, sizeof why);
        st = atom_fail(err, ATOM_ERR_FORMAT, "%s: %s: the regex '%.200s' does not compile: %s", where->file,
                       where->path, pattern, (const char *)why);
        goto done;
    }
    pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE); /* where there is no JIT, matching is slower and the same */
    *out = re;
    re = NULL;
done:
    pcre2_compile_context_free(context);
    atom_text_free(&text);
    atom_regex_free(re);
    return st;
}

void atom_regex_free(struct atom_regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    free(re);
}

enum atom_status atom_regex_start(const struct atom_regex *re, const char *text, size_t n, struct atom_regex_run *run,
                                  struct atom_error *err)
{
    if (!run->match_data)
        run->match_data = pcre2_match_data_create_from_pattern(re->code, NULL);
    if (!run->context)
        run->context = pcre2_match_context_create(NULL);
    if (!run->match_data || !run->context)
        return atom_fail_nomem(err, sizeof *run);
    /* A long run of spaces backtracks once for each: the default limits would make that a failure. */
    pcre2_set_match_limit(run->context, UINT32_MAX);
    pcre2_set_depth_limit(run->context, UINT32_MAX);
    run->re = re;
    run->text = n ? text : "";
    run->n = n;
    run->from = run->last_end = 0;
    run->matched = false;
    return ATOM_OK;
}

static int match_at(struct atom_regex_run *run)
{
    PCRE2_SPTR text = (PCRE2_SPTR)run->text;
    int rc = pcre2_match(run->re->code, text, run->n, run->from, PCRE2_NO_UTF_CHECK, run->match_data, run->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its frames on the heap */
        rc = pcre2_match(run->re->code, text, run->n, run->from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, run->match_data,
                         run->context);
    return rc;
}

enum atom_status atom_regex_next(struct atom_regex_run *run, size_t *start, size_t *end, bool *found,
                                 struct atom_error *err)
{
    *found = false;
    while (run->from <= run->n) {
        int rc = match_at(run);
        if (rc == PCRE2_ERROR_NOMATCH)
            return ATOM_OK;
        if (rc < 0) {
            PCRE2_UCHAR why[120] = "";
            pcre2_get_error_message(rc, why, sizeof why);
            return atom_fail(err, ATOM_ERR_UNSUPPORTED, "splitting the text at byte %zu of a stretch of %zu failed: %s",
                             run->from, run->n, (const char *)why);
        }
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(run->match_data);
        if (at[0] == at[1] && run->matched && at[1] == run->last_end) {
            size_t len = 1;
            if (run->from < run->n)
                atom_utf8_get(run->text + run->from, &len);
            run->from += len;
            continue;
        }
        *start = at[0];
        *end = run->from = run->last_end = at[1];
        *found = run->matched = true;
        return ATOM_OK;
    }
    return ATOM_OK;
}

void atom_regex_stop(struct atom_regex_run *run)
{
    pcre2_match_data_free(run->match_data);
    pcre2_match_context_free(run->context);
    run->match_data = run->context = NULL;
}
