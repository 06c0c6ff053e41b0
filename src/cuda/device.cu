/* SPDX-License-Identifier: Apache-2.0 */
#include "cuda/check.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct atom_cuda_device opened;
static bool is_open;

enum atom_status atom_cuda_status(cudaError_t e, const char *what, struct atom_error *err)
{
    if (e == cudaSuccess)
        return ATOM_OK;
    enum atom_status code = e == cudaErrorMemoryAllocation ? ATOM_ERR_NOMEM : ATOM_ERR_DEVICE;
    return atom_fail(err, code, "CUDA, %s: %s", what, cudaGetErrorString(e));
}

extern "C" enum atom_status atom_cuda_open(int index, struct atom_cuda_device *out, struct atom_error *err)
{
    cudaDeviceProp p;
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n == 0)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "no CUDA device: %s",
                         e == cudaSuccess ? "the driver sees none" : cudaGetErrorString(e));
    if (index < 0 || index >= n)
        return atom_fail(err, ATOM_ERR_INVALID, "CUDA device %d: expected 0 to %d", index, n - 1);
    enum atom_status st = atom_cuda_status(cudaGetDeviceProperties(&p, index), "reading a device's properties", err);
    if (st)
        return st;
    if (p.major < 8)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "CUDA device %d, %s, has compute capability %d.%d; expected 8.0 or newer", index, p.name,
                         p.major, p.minor);
    st = atom_cuda_status(cudaSetDevice(index), "opening a device", err);
    if (st)
        return st;
    memset(&opened, 0, sizeof opened);
    snprintf(opened.name, sizeof opened.name, "%s", p.name);
    opened.major = p.major;
    opened.minor = p.minor;
    opened.n_sm = p.multiProcessorCount;
    opened.memory_bytes = p.totalGlobalMem;
    opened.l2_bytes = (size_t)p.l2CacheSize;
    is_open = true;
    *out = opened;
    st = atom_cuda_status(cudaDriverGetVersion(&opened.driver), "asking the driver's version", err);
    out->driver = opened.driver;
    return st;
}

extern "C" const struct atom_cuda_device *atom_cuda_opened(void) { return is_open ? &opened : NULL; }

extern "C" void atom_cuda_close(void)
{
    if (is_open)
        cudaDeviceReset();
    is_open = false;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

extern "C" enum atom_status atom_cuda_alloc(size_t n_bytes, void **out, struct atom_error *err)
{
    char what[64];
    *out = NULL;
    if (!n_bytes)
        return ATOM_OK;
    snprintf(what, sizeof what, "taking %zu bytes", n_bytes);
    return atom_cuda_status(cudaMalloc(out, n_bytes), what, err);
}

extern "C" void atom_cuda_free(void *device) { cudaFree(device); }

static enum atom_status copy(void *to, const void *from, size_t n_bytes, enum cudaMemcpyKind kind,
                             struct atom_error *err)
{
    enum atom_status st = atom_cuda_status(cudaDeviceSynchronize(), "waiting for the device", err);
    return st || !n_bytes ? st : atom_cuda_status(cudaMemcpy(to, from, n_bytes, kind), "copying", err);
}

extern "C" enum atom_status atom_cuda_upload(void *device, const void *host, size_t n_bytes, struct atom_error *err)
{
    return copy(device, host, n_bytes, cudaMemcpyHostToDevice, err);
}

extern "C" enum atom_status atom_cuda_download(void *host, const void *device, size_t n_bytes, struct atom_error *err)
{
    return copy(host, device, n_bytes, cudaMemcpyDeviceToHost, err);
}

extern "C" enum atom_status atom_cuda_fill(void *device, int byte, size_t n_bytes, struct atom_error *err)
{
    enum atom_status st = atom_cuda_status(cudaDeviceSynchronize(), "waiting for the device", err);
    st = st || !n_bytes ? st : atom_cuda_status(cudaMemset(device, byte, n_bytes), "filling memory", err);
    return st ? st : atom_cuda_status(cudaDeviceSynchronize(), "filling memory", err);
}

/* ---- streams and time -------------------------------------------------------------------------------------------- */

extern "C" enum atom_status atom_cuda_stream_create(atom_cuda_stream *out, struct atom_error *err)
{
    *out = NULL;
    return atom_cuda_status(cudaStreamCreateWithFlags(out, cudaStreamNonBlocking), "making a stream", err);
}

extern "C" void atom_cuda_stream_free(atom_cuda_stream s)
{
    if (s)
        cudaStreamDestroy(s);
}

extern "C" enum atom_status atom_cuda_stream_wait(atom_cuda_stream s, struct atom_error *err)
{
    return atom_cuda_status(cudaStreamSynchronize(s), "running a kernel", err);
}

struct atom_cuda_timer {
    cudaEvent_t from, to;
};

extern "C" enum atom_status atom_cuda_timer_create(struct atom_cuda_timer **out, struct atom_error *err)
{
    struct atom_cuda_timer *t = (struct atom_cuda_timer *)calloc(1, sizeof *t);
    if (!t)
        return atom_fail_nomem(err, sizeof *t);
    enum atom_status st = atom_cuda_status(cudaEventCreate(&t->from), "making an event", err);
    st = st ? st : atom_cuda_status(cudaEventCreate(&t->to), "making an event", err);
    if (st) {
        atom_cuda_timer_free(t);
        return st;
    }
    *out = t;
    return ATOM_OK;
}

extern "C" void atom_cuda_timer_free(struct atom_cuda_timer *t)
{
    if (!t)
        return;
    if (t->from)
        cudaEventDestroy(t->from);
    if (t->to)
        cudaEventDestroy(t->to);
    free(t);
}

extern "C" enum atom_status atom_cuda_timer_start(struct atom_cuda_timer *t, atom_cuda_stream s, struct atom_error *err)
{
    return atom_cuda_status(cudaEventRecord(t->from, s), "marking time", err);
}

extern "C" enum atom_status atom_cuda_timer_stop(struct atom_cuda_timer *t, atom_cuda_stream s, double *seconds,
                                                 struct atom_error *err)
{
    float ms = 0;
    enum atom_status st = atom_cuda_status(cudaEventRecord(t->to, s), "marking time", err);
    st = st ? st : atom_cuda_status(cudaEventSynchronize(t->to), "running a kernel", err);
    st = st ? st : atom_cuda_status(cudaEventElapsedTime(&ms, t->from, t->to), "reading time", err);
    *seconds = (double)ms * 1e-3;
    return st;
}
