/* SPDX-License-Identifier: Apache-2.0 */
/* A CUDA device as C code sees it: memory, streams, time. A program built without nvcc has no device and says so.
 *
 * One device is open at a time, by one thread; pointers called device memory are of that device. */
#ifndef ATOM_CUDA_CUDA_H
#define ATOM_CUDA_CUDA_H

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct atom_cuda_device {
    char name[256];
    int major, minor; /* compute capability */
    int n_sm;
    int driver; /* CUDA version the driver knows, as 13000 */
    size_t memory_bytes, l2_bytes;
};

/* Opens device `index`. ATOM_ERR_UNSUPPORTED when the program has no CUDA code, there is no driver, no device, or one
 * older than compute capability 8.0. */
enum atom_status atom_cuda_open(int index, struct atom_cuda_device *out, struct atom_error *err);
const struct atom_cuda_device *atom_cuda_opened(void); /* NULL: none */
void atom_cuda_close(void);

/* Device memory, 256-byte aligned, of no certain content. n_bytes 0 gives NULL. */
enum atom_status atom_cuda_alloc(size_t n_bytes, void **out, struct atom_error *err);
void atom_cuda_free(void *device); /* takes NULL */

/* Copies that are done when they return; every stream's earlier work is done first. */
enum atom_status atom_cuda_upload(void *device, const void *host, size_t n_bytes, struct atom_error *err);
enum atom_status atom_cuda_download(void *host, const void *device, size_t n_bytes, struct atom_error *err);
enum atom_status atom_cuda_fill(void *device, int byte, size_t n_bytes, struct atom_error *err);

typedef struct CUstream_st *atom_cuda_stream; /* the runtime's own handle */
enum atom_status atom_cuda_stream_create(atom_cuda_stream *out, struct atom_error *err);
void atom_cuda_stream_free(atom_cuda_stream s);
/* Waits; what a kernel did wrong since shows here. */
enum atom_status atom_cuda_stream_wait(atom_cuda_stream s, struct atom_error *err);

/* Device time between two marks of a stream. */
struct atom_cuda_timer;
enum atom_status atom_cuda_timer_create(struct atom_cuda_timer **out, struct atom_error *err);
void atom_cuda_timer_free(struct atom_cuda_timer *t);
enum atom_status atom_cuda_timer_start(struct atom_cuda_timer *t, atom_cuda_stream s, struct atom_error *err);
/* Marks the end, waits for it. */
enum atom_status atom_cuda_timer_stop(struct atom_cuda_timer *t, atom_cuda_stream s, double *seconds,
                                      struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
