/* SPDX-License-Identifier: Apache-2.0 */
#include "model/json_read.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum atom_status atom_json_parse(const char *file, const char *text, size_t n_bytes, json_t **out,
                                 struct atom_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &why);
    /* Out of memory, the parser mostly stops without a word. */
    if (!root && (!why.text[0] || json_error_code(&why) == json_error_out_of_memory))
        return atom_fail_nomem(err, n_bytes);
    if (!root)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: not valid JSON at line %d, column %d: %s", file, why.line,
                         why.column, why.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: not a JSON object", file);
    }
    *out = root;
    return ATOM_OK;
}

enum atom_status atom_json_load(const char *dir, const char *name, size_t max_bytes, bool optional, json_t **out,
                                struct atom_error *err)
{
    char *text = NULL, *path = atom_path_join(dir, name);
    size_t n_bytes;
    if (!path)
        return atom_fail_nomem(err, 1);
    if (optional && access(path, F_OK) && errno == ENOENT) {
        free(path);
        *out = NULL;
        return ATOM_OK;
    }
    enum atom_status status = atom_file_read(path, max_bytes, &text, &n_bytes, err);
    if (!status)
        status = atom_json_parse(path, text, n_bytes, out, err);
    free(text);
    free(path);
    return status;
}

const char *atom_json_spell(const json_t *value, char text[64])
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        snprintf(text, 64, "\"%.48s\"", json_string_value(value));
        return text;
    case JSON_INTEGER:
        snprintf(text, 64, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return text;
    case JSON_REAL:
        snprintf(text, 64, "%.9g", json_real_value(value));
        return text;
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}
