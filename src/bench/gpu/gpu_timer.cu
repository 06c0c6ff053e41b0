/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/gpu_timer.h"

#include "cuda/check.cuh"

#include <stdlib.h>

enum { MAX_REPEAT = 1000, MAX_LAUNCHES = 256, MOST_HELD_NS = 500 * 1000 * 1000 };
static const double replay_s = 400e-6; /* long beside the microseconds that a replay takes to begin */

struct atom_gpu_timer {
    atom_cuda_stream stream;
    cudaEvent_t from[MAX_REPEAT], to[MAX_REPEAT];
    int n_events;
    volatile int *turn; /* host memory that the device sees: who may go, and who did not wait for it */
    int *turn_there;
    int turns;
};

static __device__ uint64_t nanoseconds()
{
    uint64_t t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}

/* Holds the stream until the host lets it go, though not for ever. */
static __global__ void hold(volatile int *turn, int mine, uint64_t most_ns)
{
    uint64_t from = nanoseconds();
    while (turn[0] != mine && nanoseconds() - from < most_ns)
        __nanosleep(200);
    if (turn[0] != mine)
        turn[1] = mine;
}

extern "C" enum atom_status atom_gpu_timer_create(struct atom_gpu_timer **out, struct atom_error *err)
{
    struct atom_gpu_timer *t = (struct atom_gpu_timer *)calloc(1, sizeof *t);
    if (!t)
        return atom_fail_nomem(err, sizeof *t);
    enum atom_status st = atom_cuda_stream_create(&t->stream, err);
    st = st ? st
            : atom_cuda_status(cudaHostAlloc((void **)&t->turn, 2 * sizeof *t->turn, cudaHostAllocMapped),
                               "taking host memory", err);
    st = st ? st
            : atom_cuda_status(cudaHostGetDevicePointer((void **)&t->turn_there, (void *)t->turn, 0),
                               "mapping host memory", err);
    if (st) {
        atom_gpu_timer_free(t);
        return st;
    }
    t->turn[0] = t->turn[1] = 0;
    *out = t;
    return ATOM_OK;
}

extern "C" void atom_gpu_timer_free(struct atom_gpu_timer *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->n_events; i++) {
        cudaEventDestroy(t->from[i]);
        cudaEventDestroy(t->to[i]);
    }
    cudaFreeHost((void *)t->turn);
    atom_cuda_stream_free(t->stream);
    free(t);
}

extern "C" atom_cuda_stream atom_gpu_timer_stream(const struct atom_gpu_timer *t) { return t->stream; }

static enum atom_status make_events(struct atom_gpu_timer *t, int n, struct atom_error *err)
{
    for (; t->n_events < n; t->n_events++) {
        enum atom_status st = atom_cuda_status(cudaEventCreate(&t->from[t->n_events]), "making an event", err);
        st = st ? st : atom_cuda_status(cudaEventCreate(&t->to[t->n_events]), "making an event", err);
        if (st)
            return st;
    }
    return ATOM_OK;
}

static enum atom_status elapsed(const struct atom_gpu_timer *t, int i, double *seconds, struct atom_error *err)
{
    float ms = 0;
    enum atom_status st = atom_cuda_status(cudaEventElapsedTime(&ms, t->from[i], t->to[i]), "reading time", err);
    *seconds = ms * 1e-3;
    return st;
}

/* Warms up, and says about how long a launch takes. */
static enum atom_status estimate(struct atom_gpu_timer *t, const struct atom_gpu_work *w, int copies, double *seconds,
                                 struct atom_error *err)
{
    enum { TIMED = 4 };
    enum atom_status st = w->put(w->self, 0, t->stream, err);
    st = st ? st : atom_cuda_stream_wait(t->stream, err);
    st = st ? st : atom_cuda_status(cudaEventRecord(t->from[0], t->stream), "marking time", err);
    for (int i = 0; i < TIMED && !st; i++)
        st = w->put(w->self, i % copies, t->stream, err);
    st = st ? st : atom_cuda_status(cudaEventRecord(t->to[0], t->stream), "marking time", err);
    st = st ? st : atom_cuda_stream_wait(t->stream, err);
    st = st ? st : elapsed(t, 0, seconds, err);
    *seconds /= TIMED;
    return st;
}

static enum atom_status record(struct atom_gpu_timer *t, const struct atom_gpu_work *w, int copies, int launches,
                               cudaGraphExec_t *out, struct atom_error *err)
{
    cudaGraph_t graph = NULL;
    enum atom_status st =
        atom_cuda_status(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeThreadLocal), "recording a graph", err);
    if (st)
        return st;
    for (int i = 0; i < launches && !st; i++)
        st = w->put(w->self, i % copies, t->stream, err);
    cudaError_t e = cudaStreamEndCapture(t->stream, &graph);
    st = st ? st : atom_cuda_status(e, "recording a graph", err);
    st = st ? st : atom_cuda_status(cudaGraphInstantiate(out, graph, 0), "making a graph", err);
    if (graph)
        cudaGraphDestroy(graph);
    return st;
}

/* late: the host did not put all replays behind the held head in time. */
static enum atom_status replay_once(struct atom_gpu_timer *t, cudaGraphExec_t graph, int repeat, bool *late,
                                    struct atom_error *err)
{
    enum atom_status st = atom_cuda_status(cudaGraphLaunch(graph, t->stream), "replaying a graph", err); /* warms up */
    hold<<<1, 1, 0, t->stream>>>(t->turn_there, ++t->turns, MOST_HELD_NS);
    st = st ? st : atom_cuda_launched("holding a stream", err);
    for (int i = 0; i < repeat && !st; i++) {
        st = atom_cuda_status(cudaEventRecord(t->from[i], t->stream), "marking time", err);
        st = st ? st : atom_cuda_status(cudaGraphLaunch(graph, t->stream), "replaying a graph", err);
        st = st ? st : atom_cuda_status(cudaEventRecord(t->to[i], t->stream), "marking time", err);
    }
    t->turn[0] = t->turns;
    enum atom_status done = atom_cuda_stream_wait(t->stream, err);
    *late = t->turn[1] == t->turns;
    return st ? st : done;
}

/* A machine that others use too may stop for a moment: then all are replayed again. Or more do not fit into the stream
 * at once, as where a library's algorithm is several kernels: then half of them, down to a few. */
static enum atom_status replay(struct atom_gpu_timer *t, cudaGraphExec_t graph, int *repeat, struct atom_error *err)
{
    enum { ATTEMPTS = 6, FEWEST = 5 };
    bool late = true;
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < ATTEMPTS && late && !st; i++) {
        if (i > 1 && *repeat >= 2 * FEWEST)
            *repeat /= 2;
        st = replay_once(t, graph, *repeat, &late, err);
    }
    if (!st && late)
        return atom_fail(err, ATOM_ERR_DEVICE, "the host took over half a second to start %d graphs, %d times in a row",
                         *repeat, ATTEMPTS);
    return st;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum atom_status read_times(struct atom_gpu_timer *t, int launches, int repeat, struct atom_gpu_time *out,
                                   struct atom_error *err)
{
    static double seconds[MAX_REPEAT];
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < repeat && !st; i++) {
        st = elapsed(t, i, &seconds[i], err);
        seconds[i] /= launches;
    }
    qsort(seconds, (size_t)repeat, sizeof seconds[0], by_size);
    out->median_s = (seconds[(repeat - 1) / 2] + seconds[repeat / 2]) / 2;
    out->fastest_s = seconds[0];
    out->launches = launches;
    out->repeats = repeat;
    return st;
}

extern "C" enum atom_status atom_gpu_timer_run(struct atom_gpu_timer *t, const struct atom_gpu_work *w, bool rotate,
                                               int repeat, struct atom_gpu_time *out, struct atom_error *err)
{
    int copies = rotate ? w->copies : 1;
    double about = 0;
    cudaGraphExec_t graph = NULL;
    repeat = repeat < 1 ? 1 : repeat > MAX_REPEAT ? MAX_REPEAT : repeat;
    enum atom_status st = make_events(t, repeat, err);
    st = st ? st : estimate(t, w, copies, &about, err);
    if (st)
        return st;
    double wanted = replay_s / (about > 1e-6 ? about : 1e-6);
    int launches = wanted > MAX_LAUNCHES ? MAX_LAUNCHES : (int)wanted + 1;
    launches = (launches + copies - 1) / copies * copies;
    st = record(t, w, copies, launches, &graph, err);
    st = st ? st : replay(t, graph, &repeat, err);
    st = st ? st : read_times(t, launches, repeat, out, err);
    if (graph)
        cudaGraphExecDestroy(graph);
    return st;
}
