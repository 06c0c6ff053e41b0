/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the header says, a tensor that is let through lies inside the file and has the bytes its shape asks for. */
#include "fuzz.h"

#include "model/safetensors_header.h"

#define HEADER                                                                                                         \
    "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"         \
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[16,22]}}"

static const struct {
    uint8_t length[8]; /* little-endian */
    char rest[sizeof HEADER - 1 + 22];
} seed = {{sizeof HEADER - 1}, HEADER};
const void *const fuzz_seed = &seed;
const size_t fuzz_seed_bytes = sizeof seed;

static volatile uint8_t sink; /* so that the reads stay */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct atom_tensor_list list = {0};
    struct atom_error err = {0};
    if (!atom_safetensors_parse(data, n_bytes, "fuzz", &list, &err)) {
        for (size_t i = 0; i < list.n; i++) {
            const struct atom_tensor *t = &list.at[i];
            float one;
            for (size_t k = 0; k < t->n_bytes; k++)
                sink ^= ((const uint8_t *)t->data)[k];
            if (t->n_bytes && (t->dtype == ATOM_F32 || t->dtype == ATOM_F16 || t->dtype == ATOM_BF16))
                atom_tensor_floats(t, t->n_bytes / atom_dtype_bytes(t->dtype) - 1, 1, &one);
        }
    } else if (!err.message[0]) {
        abort();
    }
    atom_tensor_list_fini(&list);
    return 0;
}
