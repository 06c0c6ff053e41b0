/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/shape.h"

#include "model/layer.h"

#include <stdio.h>
#include <string.h>

const struct atom_shape atom_shapes[] = {
    {"tiny", "for tests", 256, 704, 2, 4, 2, 64, 512, 8192, 10000, 64},
    {"1.1b", "TinyLlama's", 2048, 5632, 22, 32, 4, 64, 32000, 2048, 10000, 512},
    {"7b", "Llama-2-7B's", 4096, 11008, 32, 32, 32, 128, 32000, 4096, 10000, 128},
    {"13b", "Llama-2-13B's", 5120, 13824, 40, 40, 40, 128, 32000, 4096, 10000, 128},
    {"70b", "Llama-2-70B's", 8192, 28672, 80, 64, 8, 128, 32000, 4096, 10000, 64},
    {"8b", "Llama-3-8B's", 4096, 14336, 32, 32, 8, 128, 128256, 8192, 500000, 128},
    {NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
};

enum atom_status atom_shape_find(const char *name, const struct atom_shape **out, struct atom_error *err)
{
    char names[128] = "";
    for (const struct atom_shape *s = atom_shapes; s->name; s++) {
        if (strcmp(s->name, name) == 0) {
            *out = s;
            return ATOM_OK;
        }
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", s->name);
    }
    return atom_fail(err, ATOM_ERR_INVALID, "there is no shape '%s'; there are %s", name, names);
}

void atom_shape_config(const struct atom_shape *s, const struct atom_scheme *scheme, struct atom_config *out)
{
    *out = (struct atom_config){.hidden = s->hidden,
                                .intermediate = s->intermediate,
                                .layers = s->layers,
                                .heads = s->heads,
                                .kv_heads = s->kv_heads,
                                .head_dim = s->head_dim,
                                .vocab = s->vocab,
                                .max_position = s->max_position,
                                .rope = {.kind = ATOM_ROPE_DEFAULT, .theta = s->rope_theta, .factor = 1},
                                .rms_eps = 1e-5f,
                                .bos = 1,
                                .n_eos = 1,
                                .eos = {2},
                                .quantized = true,
                                .scheme = *scheme};
    for (int i = 0; i < ATOM_N_SITES; i++) {
        int most = atom_site_channels(out, (enum atom_site_id)i) / 4;
        if (out->scheme.outliers < 0 || out->scheme.outliers > most)
            out->scheme.outliers = most;
    }
}

double atom_packed_bytes(const struct atom_layout *lay, int n, int wbits)
{
    double normal = lay->k - lay->outliers, outliers = lay->outliers;
    if (wbits == 16)
        return 2.0 * n * lay->k;
    return n * (normal * (wbits == 8 ? 1.0 : 0.5) + outliers + 2.0 * lay->n_scales);
}

double atom_position_bytes(int kv_heads, int head_dim, int kvbits)
{
    double vector = kvbits == 16 ? 2.0 * head_dim : head_dim * (kvbits == 8 ? 1.0 : 0.5) + 4;
    return 2.0 * kv_heads * vector;
}

enum atom_status atom_cost_of(const struct atom_config *cfg, struct atom_cost *out, struct atom_error *err)
{
    struct atom_cost c = {0};
    struct atom_layout lay;
    for (int p = 0; p < ATOM_N_PROJ; p++) {
        int n = atom_proj_rows(cfg, p);
        enum atom_status st = atom_scheme_layout(&cfg->scheme, atom_site_channels(cfg, atom_projs[p].site), &lay, err);
        if (st)
            return st;
        c.weights += (double)n * lay.k * cfg->layers;
        c.layers_bytes += atom_packed_bytes(&lay, n, cfg->scheme.wbits) * cfg->layers;
        atom_layout_fini(&lay);
    }
    double table = (double)cfg->vocab * cfg->hidden;
    c.head_bytes = cfg->scheme.lm_head_bits == 8 ? table + 2.0 * cfg->vocab : 2 * table;
    c.embedding_bytes = 2 * table;
    c.kv_bytes = atom_position_bytes(cfg->kv_heads, cfg->head_dim, cfg->scheme.kvbits) * cfg->layers;
    *out = c;
    return ATOM_OK;
}
