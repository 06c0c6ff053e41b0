/* SPDX-License-Identifier: Apache-2.0 */
#include "eval_log.h"

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIGITS = 17 };

static enum atom_status __attribute__((format(printf, 4, 5)))
fail(const struct eval_log *log, enum atom_status code, struct atom_error *err, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(err->message, sizeof err->message, "%.300s: ", log->name);
    va_start(ap, fmt);
    vsnprintf(err->message + n, sizeof err->message - (size_t)n, fmt, ap);
    va_end(ap);
    err->code = code;
    return code;
}

static enum atom_status lost(const struct eval_log *log, struct atom_error *err)
{
    return fail(log, ATOM_ERR_IO, err, "%s", errno ? strerror(errno) : "some of it could not be written");
}

/* ---- what an earlier run wrote ----------------------------------------------------------------------------------- */

static bool begins_file(const json_t *line) { return json_integer_value(json_object_get(line, "log")) == 1; }
static bool is_item(const json_t *line)
{
    return json_is_integer(json_object_get(line, "line")) && json_is_array(json_object_get(line, "loglikelihoods"));
}
static bool ends_file(const json_t *line) { return json_is_integer(json_object_get(line, "n")); }

/* Files one after the other, each but the last with all its items and its end. */
static enum atom_status check_lines(const struct eval_log *log, struct atom_error *err)
{
    json_int_t items = -1; /* of the file that has begun */
    const json_t *line;
    size_t i;
    json_array_foreach(log->lines, i, line)
    {
        bool fits = items < 0       ? begins_file(line) && json_is_object(json_object_get(line, "run"))
                    : is_item(line) ? true
                                    : ends_file(line) && json_integer_value(json_object_get(line, "n")) == items;
        if (!fits)
            return fail(log, ATOM_ERR_FORMAT, err, "line %zu is not what a log of 'eval tasks' has there", i + 1);
        items = items < 0 ? 0 : is_item(line) ? items + 1 : -1;
    }
    return ATOM_OK;
}

/* Or like the beginning of one. */
static bool looks_like_log(const char *text, size_t n_bytes)
{
    static const char begin[] = "{\"log\": 1, ";
    return memcmp(text, begin, n_bytes < sizeof begin - 1 ? n_bytes : sizeof begin - 1) == 0;
}

/* Whole lines; *kept: their bytes. */
static enum atom_status read_lines(struct eval_log *log, const char *text, size_t n_bytes, size_t *kept,
                                   struct atom_error *err)
{
    if (!looks_like_log(text, n_bytes))
        return fail(log, ATOM_ERR_FORMAT, err, "line 1 is not what a log of 'eval tasks' has there");
    const char *at = text, *end = text + n_bytes, *stop;
    for (; (stop = memchr(at, '\n', (size_t)(end - at))); at = stop + 1) {
        json_t *line = json_loadb(at, (size_t)(stop - at), 0, NULL);
        if (!json_is_object(line) || json_array_append_new(log->lines, line))
            return fail(log, ATOM_ERR_FORMAT, err, "line %zu is not JSON", json_array_size(log->lines) + 1);
    }
    *kept = (size_t)(at - text);
    return check_lines(log, err);
}

static enum atom_status resume(struct eval_log *log, int fd, struct atom_error *err)
{
    char *text;
    size_t n_bytes, kept = 0;
    enum atom_status st = cli_read_file(log->name, &text, &n_bytes, err);
    if (st)
        return st;
    st = read_lines(log, text, n_bytes, &kept, err);
    free(text);
    if (!st && (ftruncate(fd, (off_t)kept) || lseek(fd, 0, SEEK_END) < 0))
        st = lost(log, err);
    return st;
}

/* Devices and pipes cannot be cut, and need not be. */
static enum atom_status begin_anew(struct eval_log *log, int fd, bool overwrite, struct atom_error *err)
{
    char head[16];
    struct stat st;
    if (fstat(fd, &st))
        return lost(log, err);
    if (!S_ISREG(st.st_mode) || st.st_size == 0)
        return ATOM_OK;
    if (!overwrite) {
        snprintf(err->message, sizeof err->message,
                 "%.300s is there already; --resume goes on with it, --overwrite begins it anew", log->name);
        return err->code = ATOM_ERR_INVALID;
    }
    ssize_t n = pread(fd, head, sizeof head, 0);
    if (n >= 0 && !looks_like_log(head, (size_t)n)) {
        snprintf(err->message, sizeof err->message, "%.300s is not a log of 'eval tasks' and is not overwritten",
                 log->name);
        return err->code = ATOM_ERR_INVALID;
    }
    return n >= 0 && ftruncate(fd, 0) == 0 ? ATOM_OK : lost(log, err);
}

enum atom_status eval_log_open(struct eval_log *log, const char *name, enum eval_log_mode mode, struct atom_error *err)
{
    *log = (struct eval_log){.name = name};
    if (!name)
        return ATOM_OK;
    log->lines = json_array();
    int fd = open(name, (mode == EVAL_LOG_NEW ? O_WRONLY : O_RDWR) | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return lost(log, err);
    log->out = fdopen(fd, "w");
    if (!log->out) {
        close(fd);
        return lost(log, err);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return fail(log, ATOM_ERR_IO, err, "another run writes this log");
    return mode == EVAL_LOG_RESUME ? resume(log, fd, err) : begin_anew(log, fd, mode == EVAL_LOG_OVERWRITE, err);
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

static enum atom_status compare(const struct eval_log *log, const json_t *then, json_t *now, struct atom_error *err)
{
    static const char *const contents[] = {"model", "items", "labels", "examples", "example_labels"};
    const char *key;
    json_t *value;
    json_object_foreach(now, key, value)
    {
        const json_t *had = json_object_get(then, key);
        if (had && json_equal(had, value))
            continue;
        for (size_t i = 0; i < sizeof contents / sizeof *contents; i++)
            if (strcmp(key, contents[i]) == 0)
                return fail(log, ATOM_ERR_INVALID, err,
                            "line %zu was begun with other contents: '%s'; it cannot be resumed", log->at + 1, key);
        char *a = json_dumps(had, JSON_ENCODE_ANY), *b = json_dumps(value, JSON_ENCODE_ANY);
        enum atom_status st =
            fail(log, ATOM_ERR_INVALID, err, "line %zu was begun with '%s' %s, now %s; it cannot be resumed",
                 log->at + 1, key, a ? a : "missing", b ? b : "missing");
        free(a);
        free(b);
        return st;
    }
    return ATOM_OK;
}

enum atom_status eval_log_begin(struct eval_log *log, const struct eval_task_name *task, const char *signature,
                                struct atom_error *err)
{
    log->task = *task;
    if (!log->name)
        return ATOM_OK;
    json_t *now = json_loads(signature, 0, NULL);
    if (log->at < json_array_size(log->lines)) {
        enum atom_status st = compare(log, json_object_get(json_array_get(log->lines, log->at), "run"), now, err);
        json_decref(now);
        log->at++;
        return st;
    }
    json_t *o = json_pack("{s:i, s:s%, s:s, s:o}", "log", 1, "task", task->stem, (size_t)task->stem_bytes, "file",
                          task->file, "run", now);
    if (!o)
        return fail(log, ATOM_ERR_FORMAT, err, "no JSON can name %.300s: it is not UTF-8", task->file);
    log->lost |= !eval_put_line(log->out, o, DIGITS);
    return eval_log_flush(log) ? ATOM_OK : lost(log, err);
}

bool eval_log_recall(void *user, int line, int n, double *loglikelihoods, bool *right)
{
    struct eval_log *log = user;
    const json_t *item = json_array_get(log->lines, log->at), *lls = json_object_get(item, "loglikelihoods");
    if (log->bad || !is_item(item))
        return false;
    log->bad = json_integer_value(json_object_get(item, "line")) != line || (int)json_array_size(lls) != n;
    for (int i = 0; i < n && !log->bad; i++) {
        const json_t *ll = json_array_get(lls, (size_t)i);
        log->bad = !json_is_real(ll);
        loglikelihoods[i] = json_real_value(ll);
    }
    *right = json_is_true(json_object_get(item, "right"));
    log->at++;
    return !log->bad;
}

void eval_log_item(void *user, const struct atom_task_item *item)
{
    struct eval_log *log = user;
    json_t *lls = json_array(), *tokens = json_array();
    for (int i = 0; i < item->n; i++) {
        json_array_append_new(lls, json_real(item->loglikelihoods[i]));
        json_array_append_new(tokens, json_integer(item->n_tokens[i]));
    }
    json_t *o = json_pack("{s:s%, s:i, s:o, s:o, s:b}", "task", log->task.stem, (size_t)log->task.stem_bytes, "line",
                          item->line, "loglikelihoods", lls, "tokens", tokens, "right", item->right);
    if (item->subtask)
        json_object_set_new(o, "subtask", json_string(item->subtask));
    if (item->gold >= 0) {
        json_object_set_new(o, "gold", json_integer(item->gold));
        json_object_set_new(o, "best", json_integer(item->best));
    }
    if (item->best_norm >= 0) {
        json_object_set_new(o, "best_norm", json_integer(item->best_norm));
        json_object_set_new(o, "right_norm", json_boolean(item->right_norm));
    }
    if (item->cut)
        json_object_set_new(o, "cut", json_true());
    log->bad |= log->at < json_array_size(log->lines);
    if (!log->bad)
        log->lost |= !eval_put_line(log->out, o, DIGITS);
    else
        json_decref(o);
}

enum atom_status eval_log_end(struct eval_log *log, const struct atom_task_score *score, struct atom_error *err)
{
    if (!log->name)
        return ATOM_OK;
    if (log->bad)
        return fail(log, ATOM_ERR_FORMAT, err, "line %zu is not of the item that it should be of", log->at);
    if (log->at < json_array_size(log->lines)) {
        log->at++;
        return ATOM_OK;
    }
    log->lost |= !eval_put_line(log->out, eval_score_json(&log->task, score), DIGITS);
    return eval_log_flush(log) ? ATOM_OK : lost(log, err);
}

bool eval_log_flush(struct eval_log *log)
{
    errno = 0;
    if (log->out && (fflush(log->out) || ferror(log->out)))
        log->lost = true;
    return !log->lost && !log->bad;
}

enum atom_status eval_log_close(struct eval_log *log, struct atom_error *err)
{
    errno = 0;
    bool fails = log->out && fclose(log->out);
    json_decref(log->lines);
    log->lines = NULL;
    log->out = NULL;
    return fails ? lost(log, err) : ATOM_OK;
}
