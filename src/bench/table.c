/* SPDX-License-Identifier: Apache-2.0 */
/* Lines as rows of a table for people. */
#include "bench/bench.h"

#include "bench/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const bound_words[] = {"", "of int8 peak", "of f32 peak", "of bf16 peak", "of read bandwidth"};

static bool same_text(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static void put_seconds(FILE *f, double s)
{
    if (s < 1e-3)
        fprintf(f, "  %7.1f us", s * 1e6);
    else if (s < 1)
        fprintf(f, "  %7.2f ms", s * 1e3);
    else
        fprintf(f, "  %7.3f s ", s);
}

static void put_rate(FILE *f, double amount, double seconds)
{
    if (amount > 0)
        fprintf(f, "  %8.1f", amount / seconds * 1e-9);
    else
        fprintf(f, "  %8s", "-");
}

static void put_share(FILE *f, const struct atom_bench_line *l)
{
    if (l->share > 0)
        fprintf(f, "  %5.1f %% %s\n", 100 * l->share, bound_words[l->bound]);
    else
        fputs("      -\n", f);
}

static void put_bytes(FILE *f, const char *what, double n) { fprintf(f, "  %-28s %10.1f MiB\n", what, n / (1 << 20)); }

/* ---- kinds ------------------------------------------------------------------------------------------------------- */

/* One row for both numbers of threads: the first begins it, the second ends it. */
static void put_ceiling(FILE *f, const struct atom_bench_line *l, const struct atom_bench_line *before)
{
    bool first = !before || before->what != l->what, last = l->threads == atom_runtime_threads();
    if (first)
        fprintf(f, "\nceilings of this machine (%s, %s)\n  %-6s  %10s  ", atom_machine_name(), atom_runtime_cpu(), "",
                "1 thread");
    if (first && atom_runtime_threads() > 1)
        fprintf(f, "%2d threads  ", atom_runtime_threads());
    if (first)
        fputs("1e9 a second\n", f);
    if (first || !same_text(before->name, l->name))
        fprintf(f, "  %-6s", l->name);
    double rate = (l->bytes > 0 ? l->bytes : l->ops) * 1e-9;
    if (rate > 0)
        fprintf(f, "  %10.1f", rate);
    else
        fprintf(f, "  %10s", "-");
    if (last)
        fprintf(f, "  %-10s  %s\n", l->bytes > 0 ? "bytes" : "operations", *l->how ? l->how : "none in this tier");
}

static bool same_bits(const struct atom_bench_line *a, const struct atom_bench_line *b)
{
    return a->wbits == b->wbits && a->abits == b->abits && a->kv == b->kv;
}

static void put_kernel_heading(FILE *f, const struct atom_bench_line *l)
{
    fprintf(f, "\noperations of the %s shape, ", l->shape);
    if (l->abits == 16)
        fprintf(f, "W%d, activations float", l->wbits);
    else
        fprintf(f, "W%dA%dKV%d", l->wbits, l->abits, l->kv);
    fprintf(f, ", %d thread%s; ", l->threads, l->threads == 1 ? "" : "s");
    for (int i = 0; l->checked[i]; i++)
        fprintf(f, "%s%d", i ? ", " : "same bits as scalar at ", l->checked[i]);
    fputs(l->checked[0] ? " tokens\n" : "bits of this tier's own\n", f);
    fprintf(f, "  %-20s  %6s  %6s  %10s  %10s  %8s  %8s   share\n", "", "tokens", "depth", "median", "fastest", "Gop/s",
            "GB/s");
}

static void put_kernel(FILE *f, const struct atom_bench_line *l, const struct atom_bench_line *before)
{
    char name[64];
    if (!before || before->what != l->what || !same_text(before->shape, l->shape) || !same_bits(before, l))
        put_kernel_heading(f, l);
    snprintf(name, sizeof name, "%s%s%s", l->name, l->how ? " " : "", l->how ? l->how : "");
    fprintf(f, "  %-20s  %6d  %6d", name, l->tokens, l->depth);
    put_seconds(f, l->median_s);
    put_seconds(f, l->fastest_s);
    put_rate(f, l->ops, l->median_s);
    put_rate(f, l->bytes, l->median_s);
    put_share(f, l);
}

static void put_model(FILE *f, const struct atom_bench_line *l, const struct atom_bench_line *before)
{
    if (!before || before->what != l->what || !same_text(before->shape, l->shape))
        fprintf(f,
                "\nmodel of the %s shape, W%dA%dKV%d, %d-bit head, %d thread%s\n"
                "  %-8s  %6s  %6s  %5s  %10s  %10s  %10s   share\n",
                l->shape, l->wbits, l->abits, l->kv, l->head, l->threads, l->threads == 1 ? "" : "s", "", "tokens",
                "depth", "batch", "tok/s", "median", "fastest");
    fprintf(f, "  %-8s  %6d  %6d  %5d  %10.1f", l->name, l->tokens, l->depth, l->batch, l->tok_s);
    put_seconds(f, l->median_s);
    put_seconds(f, l->fastest_s);
    put_share(f, l);
}

static void put_memory(FILE *f, const struct atom_bench_line *l)
{
    fprintf(f, "\nmemory of the %s shape\n", l->shape);
    put_bytes(f, "weights of the layers", l->memory.weights);
    put_bytes(f, "head", l->memory.head);
    put_bytes(f, "embedding", l->memory.embedding);
    put_bytes(f, "KV cache of 4096 positions", l->memory.kv);
    put_bytes(f, "peak of the process", l->memory.peak);
}

static void put_load(FILE *f, const struct atom_bench_line *l)
{
    fprintf(f, "\n%s\n  %-28s %10.3f s\n  %-28s %10.3f s\n", l->shape, "until the model was open", l->open_s,
            "from there to the first token", l->first_s);
    put_bytes(f, "peak of the process", l->memory.peak);
}

char *atom_bench_text(const struct atom_bench_line *l, const struct atom_bench_line *before)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    switch (l->what) {
    case ATOM_BENCH_CEILING:
        put_ceiling(f, l, before);
        break;
    case ATOM_BENCH_KERNEL:
        put_kernel(f, l, before);
        break;
    case ATOM_BENCH_MODEL:
        put_model(f, l, before);
        break;
    case ATOM_BENCH_MEMORY:
        put_memory(f, l);
        break;
    case ATOM_BENCH_LOAD:
        put_load(f, l);
        break;
    }
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
