/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever config.json says, a model that is let through has shapes that can be computed with. */
#include "fuzz.h"

#include "model/config.h"

static const char seed[] =
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,\"vocab_size\":100,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":16,\"rms_norm_eps\":1e-5,\"eos_token_id\":[1,2],"
    "\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":5e5,\"factor\":8,\"low_freq_factor\":1,"
    "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192},\"quantization_config\":{\"quant_method\":"
    "\"atom\","
    "\"version\":1,\"wbits\":4,\"abits\":4,\"kvbits\":4,\"group\":128,\"outliers\":128,\"outlier_bits\":8,"
    "\"rows_per_scale\":2,\"act_clip\":0.9,\"weight_clip\":0.85,\"kv_clip\":1.0,\"kv_rope\":\"post\",\"rotate\":["
    "\"qk\"],"
    "\"lm_head_bits\":16,\"gptq\":true}}";
const void *const fuzz_seed = seed;
const size_t fuzz_seed_bytes = sizeof seed - 1;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct atom_config c;
    struct atom_error err = {0};
    if (atom_config_parse((const char *)data, n_bytes, &c, &err)) {
        if (!err.message[0])
            abort();
        return 0;
    }
    int q = c.heads * c.head_dim, kv = 2 * c.kv_heads * c.head_dim;
    if (q < 1 || kv < 1 || c.heads % c.kv_heads || c.head_dim % 2 || c.vocab < 1 || c.layers < 1 || c.n_eos > 8)
        abort();
    if (!(c.rms_eps > 0) || !(c.rope.theta >= 1) || !(c.rope.factor >= 1))
        abort();
    const struct atom_foreign *f = &c.foreign;
    if (f->format && ((f->bits != 2 && f->bits != 4 && f->bits != 8) || f->group < 0))
        abort();
    if (atom_scheme_check(&c.scheme, c.head_dim, NULL))
        abort();
    return 0;
}
