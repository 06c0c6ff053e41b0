/* SPDX-License-Identifier: Apache-2.0 */
/* What the device does at best, by kernels that do nothing else. */
#ifndef ATOM_BENCH_GPU_CEILINGS_H
#define ATOM_BENCH_GPU_CEILINGS_H

#include "bench/gpu/gpu_timer.h"
#include "bench/gpu_bench.h"

#ifdef __cplusplus
extern "C" {
#endif

struct atom_gpu_ceilings {
    struct {
        char how[ATOM_GPU_WHOSE]; /* empty: this device has none */
        double rate, clock_hz;    /* a second; 0: not known */
        struct atom_gpu_time time;
    } at[ATOM_GPU_N_CEILINGS];
};

/* The best of several ways of each. Takes up to 2 GiB of device memory for a while. */
enum atom_status atom_gpu_ceilings_measure(struct atom_gpu_timer *t, struct atom_gpu_ceilings *out,
                                           struct atom_error *err);

/* ---- the kernels ---- */

/* A loop of products on registers and shared memory. Device memory `clock` keeps the highest clock, in Hz. */
struct atom_gpu_peak {
    enum atom_gpu_ceiling what;
    int major, minor; /* oldest compute capability that has it */
    int newest_major; /* after which it is emulated or second best; 0: none */
    const char *how;
    double (*put)(int blocks_per_sm, int loops, unsigned long long *clock, atom_cuda_stream s); /* operations */
    int threads;                                                                                /* of a block */
};
extern const struct atom_gpu_peak atom_gpu_peaks_mma[];  /* ends with put NULL */
extern const struct atom_gpu_peak atom_gpu_peaks_sm90[]; /* likewise */

/* Reads n_bytes, a multiple of 1 MiB, and writes them when `to` is not NULL; `sink` is device memory of 4 bytes. */
struct atom_gpu_stream_job {
    const void *from;
    void *to, *sink;
    size_t n_bytes;
    int blocks_per_sm; /* 0: as many as leave each thread one turn */
    int ahead;         /* loads of a turn: 1, 4 or 8 */
};
enum atom_status atom_gpu_stream_put(const struct atom_gpu_stream_job *job, atom_cuda_stream s, struct atom_error *err);
enum atom_status atom_gpu_nothing_put(atom_cuda_stream s, struct atom_error *err);
enum atom_status atom_gpu_peak_put(const struct atom_gpu_peak *p, int blocks_per_sm, int loops,
                                   unsigned long long *clock, double *ops, atom_cuda_stream s, struct atom_error *err);

/* "13.0", "nvcc 13.0.88" */
void atom_gpu_toolkit(char cuda[16], char compiler[32]);

#ifdef __cplusplus
}
#endif

#endif
