/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/save.h"

#include "base/file.h"
#include "model/scheme.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char *atom_config_text(const struct atom_config *cfg)
{
    json_t *scheme = atom_scheme_json(&cfg->scheme);
    json_t *o =
        json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:b, s:b, s:s, s:i, "
                  "s:i, s:o}",
                  "architectures", "LlamaForCausalLM", "model_type", "llama", "hidden_size", cfg->hidden,
                  "intermediate_size", cfg->intermediate, "num_hidden_layers", cfg->layers, "num_attention_heads",
                  cfg->heads, "num_key_value_heads", cfg->kv_heads, "head_dim", cfg->head_dim, "vocab_size", cfg->vocab,
                  "max_position_embeddings", cfg->max_position, "rms_norm_eps", (double)cfg->rms_eps, "rope_theta",
                  cfg->rope.theta, "attention_bias", 0, "mlp_bias", 0, "tie_word_embeddings", 0, "hidden_act", "silu",
                  "bos_token_id", cfg->bos, "eos_token_id", cfg->eos[0], "quantization_config", scheme);
    char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(7)) : NULL;
    json_decref(o);
    return text;
}

/* ---- into the directory ------------------------------------------------------------------------------------------ */

static enum atom_status put_text(const char *dir, const char *name, const char *text, struct atom_error *err)
{
    char *path = atom_path_join(dir, name);
    enum atom_status st = ATOM_OK;
    if (!path || !text)
        st = atom_fail_nomem(err, strlen(name));
    else
        st = atom_file_write(path, text, strlen(text), err);
    free(path);
    return st;
}

static enum atom_status put_tokenizer(const char *dir, int n_ids, struct atom_error *err)
{
    json_t *o = atom_letters_tokenizer(n_ids);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    enum atom_status st = put_text(dir, "tokenizer.json", text, err);
    free(text);
    json_decref(o);
    return st;
}

static enum atom_status put_config(const char *dir, const struct atom_config *cfg, struct atom_error *err)
{
    char *text = atom_config_text(cfg);
    enum atom_status st = put_text(dir, "config.json", text, err);
    free(text);
    return st;
}

/* File number i of n: a layer, or at the end what is no layer's. */
static void name_shard(int i, int n, char name[64]) { snprintf(name, 64, "model-%05d-of-%05d.safetensors", i + 1, n); }

static enum atom_status put_shards(const struct atom_random_dir *d, const char *dir, struct atom_error *err)
{
    int n, each = atom_random_per_layer(d->random), layers = d->cfg->layers;
    const struct atom_tensor *list = atom_random_list(d->random, &n);
    enum atom_status st = ATOM_OK;
    for (int i = 0; i <= layers && !st; i++) {
        char name[64];
        name_shard(i, layers + 1, name);
        char *path = atom_path_join(dir, name);
        if (!path)
            return atom_fail_nomem(err, strlen(dir));
        st = d->tell ? d->tell(d->user, i, layers + 1, err) : ATOM_OK;
        if (!st)
            st = atom_safetensors_write(path, list + i * each, i < layers ? each : n - i * each, err);
        free(path);
    }
    return st;
}

static enum atom_status put_index(const struct atom_random_dir *d, const char *dir, struct atom_error *err)
{
    int n, each = atom_random_per_layer(d->random), layers = d->cfg->layers, failed = 0;
    const struct atom_tensor *list = atom_random_list(d->random, &n);
    json_t *map = json_object();
    json_int_t total = 0;
    for (int i = 0; i < n; i++) {
        char name[64];
        name_shard(i / each < layers ? i / each : layers, layers + 1, name);
        failed |= json_object_set_new(map, list[i].name, json_string(name));
        total += (json_int_t)list[i].n_bytes;
    }
    json_t *o = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", total, "weight_map", map);
    char *text = o && !failed ? json_dumps(o, JSON_INDENT(2)) : NULL;
    enum atom_status st = put_text(dir, "model.safetensors.index.json", text, err);
    free(text);
    json_decref(o);
    return st;
}

/* ---- the directory ----------------------------------------------------------------------------------------------- */

static enum atom_status must_not_be(const char *path, struct atom_error *err)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return atom_fail(err, ATOM_ERR_INVALID, "%s is there already and is left as it is", path);
    return errno == ENOENT ? ATOM_OK : atom_fail_errno(err, errno, "cannot look at %s", path);
}

static enum atom_status fill(const struct atom_random_dir *d, const char *partial, const char *dir,
                             struct atom_error *err)
{
    if (mkdir(partial, 0777))
        return atom_fail_errno(err, errno, "cannot make the directory %s", partial);
    enum atom_status st = put_config(partial, d->cfg, err);
    st = st ? st : put_tokenizer(partial, d->cfg->vocab, err);
    st = st ? st : put_shards(d, partial, err);
    st = st ? st : put_index(d, partial, err);
    st = st ? st : must_not_be(dir, err);
    st = st ? st : atom_dir_replace(partial, dir, err);
    if (st)
        atom_dir_delete(partial, NULL);
    return st;
}

enum atom_status atom_random_save(const struct atom_random_dir *d, struct atom_error *err)
{
    size_t n = strlen(d->dir);
    while (n > 1 && d->dir[n - 1] == '/')
        n--;
    if (n == 0)
        return atom_fail(err, ATOM_ERR_INVALID, "the directory to make has no name");
    char *name = strndup(d->dir, n), *partial = NULL;
    if (!name || asprintf(&partial, "%s.partial", name) < 0) {
        free(name);
        return atom_fail_nomem(err, n);
    }
    enum atom_status st = must_not_be(name, err);
    st = st ? st : must_not_be(partial, err);
    st = st ? st : fill(d, partial, name, err);
    free(name);
    free(partial);
    return st;
}
