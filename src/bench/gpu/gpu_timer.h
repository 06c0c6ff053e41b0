/* SPDX-License-Identifier: Apache-2.0 */
/* The time of a launch, without what the host adds to it.
 *
 * Launches are recorded as a graph, many one after the other, which is replayed: events stand around each replay, and a
 * time is a replay's divided by its launches. The stream is held by a kernel at its head until the host has put all
 * replays behind it, so that nothing in between waits for the host. The gap from one kernel to the next on the device
 * is part of the time, as it is of a decode step's. */
#ifndef ATOM_BENCH_GPU_TIMER_H
#define ATOM_BENCH_GPU_TIMER_H

#include "cuda/cuda.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Something to launch, which has its inputs `copies` times, each in memory of its own. */
struct atom_gpu_work {
    enum atom_status (*put)(void *self, int copy, atom_cuda_stream s, struct atom_error *err);
    void *self;
    int copies;
};

struct atom_gpu_time {
    double median_s, fastest_s; /* of one launch */
    int launches, repeats;
};

struct atom_gpu_timer;
enum atom_status atom_gpu_timer_create(struct atom_gpu_timer **out, struct atom_error *err);
void atom_gpu_timer_free(struct atom_gpu_timer *t); /* takes NULL */
atom_cuda_stream atom_gpu_timer_stream(const struct atom_gpu_timer *t);

/* rotate: one copy after the other; else the first over and over. `repeat` replays, at least 1, 1000 at most. */
enum atom_status atom_gpu_timer_run(struct atom_gpu_timer *t, const struct atom_gpu_work *w, bool rotate, int repeat,
                                    struct atom_gpu_time *out, struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
