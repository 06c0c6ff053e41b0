/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/gpu_run.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEAT = 21 };

enum atom_status atom_gpu_tell(struct atom_gpu_run *run, const char *phase, struct atom_error *err)
{
    const struct atom_gpu_options *opt = run->opt;
    const struct atom_progress p = {.phase = phase, .unit = "measurement", .done = run->done++, .total = run->total};
    if (!opt->progress || opt->progress(opt->user, &p))
        return ATOM_OK;
    return atom_fail(err, ATOM_ERR_CANCELLED, "interrupted");
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* Of operations and bytes, what by itself would take longer bounds a line; what lies in a cache is not compared with
 * memory. */
static void set_share(const struct atom_gpu_run *run, struct atom_gpu_line *line, enum atom_gpu_ceiling memory)
{
    double peak = run->ceilings.at[line->bound].rate, stream = run->ceilings.at[memory].rate;
    double by_ops = peak > 0 ? line->ops / peak : 0, by_bytes = stream > 0 ? line->bytes / stream : 0;
    if (by_bytes > by_ops)
        line->bound = memory;
    line->share = by_bytes <= by_ops ? by_ops / line->median_s : line->cold ? by_bytes / line->median_s : 0;
}

void atom_gpu_tell_line(const struct atom_gpu_run *run, struct atom_gpu_line *line, const struct atom_gpu_time *time,
                        enum atom_gpu_ceiling memory)
{
    struct atom_gpu_line told = *line;
    told.machine = &run->machine;
    if (time) {
        told.median_s = time->median_s;
        told.fastest_s = time->fastest_s;
        told.launches = time->launches;
        told.repeats = time->repeats;
        set_share(run, &told, memory);
    }
    run->opt->on_line(run->opt->user, &told);
}

static void tell_ceilings(const struct atom_gpu_run *run)
{
    for (int i = 1; i < ATOM_GPU_N_CEILINGS; i++) {
        bool bytes = i == ATOM_GPU_READ || i == ATOM_GPU_COPY;
        struct atom_gpu_line line = {.what = ATOM_GPU_CEILING, .clock_hz = run->ceilings.at[i].clock_hz};
        *(bytes ? &line.bytes : &line.ops) = run->ceilings.at[i].rate;
        snprintf(line.name, sizeof line.name, "%s", atom_gpu_ceiling_names[i]);
        snprintf(line.how, sizeof line.how, "%s", run->ceilings.at[i].how);
        line.median_s = run->ceilings.at[i].time.median_s;
        line.fastest_s = run->ceilings.at[i].time.fastest_s;
        line.launches = run->ceilings.at[i].time.launches;
        line.repeats = run->ceilings.at[i].time.repeats;
        line.machine = &run->machine;
        run->opt->on_line(run->opt->user, &line);
    }
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

/* The driver's own version is nowhere in the runtime. */
static void read_driver(int known, char out[32])
{
    FILE *f = fopen("/sys/module/nvidia/version", "r");
    int n = f ? fscanf(f, "%31s", out) : 0;
    if (f)
        fclose(f);
    if (n != 1)
        snprintf(out, 32, "of CUDA %d.%d", known / 1000, known % 1000 / 10);
}

static void describe(const struct atom_cuda_device *d, struct atom_gpu_machine *m)
{
    memcpy(m->device, d->name, sizeof m->device);
    snprintf(m->capability, sizeof m->capability, "%u.%u", (unsigned)d->major % 100, (unsigned)d->minor % 100);
    read_driver(d->driver, m->driver);
    atom_gpu_toolkit(m->cuda, m->compiler);
}

static enum atom_status measure(struct atom_gpu_run *run, struct atom_error *err)
{
    const struct atom_gpu_options *opt = run->opt;
    run->total = 1 + (opt->linears ? atom_gpu_count_linears(run) : 0) +
                 (opt->rows ? atom_gpu_count_operations(run, ATOM_GPU_ROWS) : 0) +
                 (opt->attention ? atom_gpu_count_operations(run, ATOM_GPU_ATTENTION) : 0);
    enum atom_status st = atom_gpu_tell(run, "ceilings", err);
    st = st ? st : atom_gpu_ceilings_measure(run->timer, &run->ceilings, err);
    if (!st && opt->ceilings)
        tell_ceilings(run);
    if (!st && opt->linears)
        st = atom_gpu_linears(run, err);
    if (!st && opt->rows)
        st = atom_gpu_operations(run, ATOM_GPU_ROWS, err);
    if (!st && opt->attention)
        st = atom_gpu_operations(run, ATOM_GPU_ATTENTION, err);
    return st;
}

enum atom_status atom_bench_gpu(const struct atom_gpu_options *opt, struct atom_error *err)
{
    struct atom_gpu_run *run = calloc(1, sizeof *run);
    struct atom_cuda_device device;
    if (!run)
        return atom_fail_nomem(err, sizeof *run);
    run->opt = opt;
    run->repeat = opt->repeat ? opt->repeat : REPEAT;
    enum atom_status st = atom_gpu_plan_make(opt, &run->plan, err);
    st = st ? st : atom_cuda_open(opt->device, &device, err);
    if (!st) {
        describe(&device, &run->machine);
        st = atom_gpu_timer_create(&run->timer, err);
        st = st ? st : measure(run, err);
        atom_gpu_timer_free(run->timer);
        atom_cuda_close();
    }
    free(run);
    return st;
}
