/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the lines of a task say, items that are let through have rows, a gold among them and characters. */
#include "fuzz.h"

#include "eval/task_items.h"

static const char seed[] = "{\"task\": \"t\", \"context\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": 1}\n"
                           "{\"task\": \"u\", \"context\": \"\", \"choices\": [\"b\", \"c\"], \"gold\": 0}\n";
const void *const fuzz_seed = seed;
const size_t fuzz_seed_bytes = sizeof seed - 1;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct atom_task_items items;
    struct atom_error err = {0};
    if (atom_task_items_parse((const char *)data, n_bytes, &items, &err)) {
        if (!err.message[0])
            abort();
        return 0;
    }
    for (int i = 0; i < items.n; i++) {
        const struct atom_task_source *item = &items.at[i];
        if (item->n < 1 || item->gold >= item->n || (item->gold < 0) != (items.kind == ATOM_TASK_CONTINUATION))
            abort();
        for (int r = 0; r < item->n; r++)
            if (!atom_task_context(item, r) || atom_task_characters(atom_task_continuation(item, r)) < 1)
                abort();
    }
    atom_task_items_fini(&items);
    return 0;
}
