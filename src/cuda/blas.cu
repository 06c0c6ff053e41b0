/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt through dlopen: plans and products. */
#include "cuda/blas.h"

#include "cuda/check.cuh"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is called, by the library's own names and prototypes. */
#define LT_FUNCTIONS(F)                                                                                                \
    F(create, cublasLtCreate)                                                                                          \
    F(destroy, cublasLtDestroy)                                                                                        \
    F(version, cublasLtGetVersion)                                                                                     \
    F(status_string, cublasLtGetStatusString)                                                                          \
    F(matmul, cublasLtMatmul)                                                                                          \
    F(candidates, cublasLtMatmulAlgoGetHeuristic)                                                                      \
    F(desc_create, cublasLtMatmulDescCreate)                                                                           \
    F(desc_destroy, cublasLtMatmulDescDestroy)                                                                         \
    F(desc_set, cublasLtMatmulDescSetAttribute)                                                                        \
    F(preference_create, cublasLtMatmulPreferenceCreate)                                                               \
    F(preference_destroy, cublasLtMatmulPreferenceDestroy)                                                             \
    F(preference_set, cublasLtMatmulPreferenceSetAttribute)                                                            \
    F(layout_init, cublasLtMatrixLayoutInit_internal)

#define LT_POINTER(member, name) decltype(&name) member;
struct lt {
    LT_FUNCTIONS(LT_POINTER)
};

/* The first that opens is taken. The toolkit's folder is often in no list of the loader's. */
#define LT_NAMES "libcublasLt.so.13, libcublasLt.so.12, and the same in /usr/local/cuda/lib64"
static const char *const lt_names[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                       "/usr/local/cuda/lib64/libcublasLt.so.13",
                                       "/usr/local/cuda/lib64/libcublasLt.so.12"};

enum { WORKSPACE_BYTES = 64 << 20, MAX_CANDIDATES = 16, TIMED_REPEATS = 5 };

struct atom_cuda_blas {
    void *library;
    struct lt lt;
    cublasLtHandle_t handle;
    void *workspace;
};

struct atom_cuda_blas_plan {
    struct atom_cuda_blas *blas;
    struct atom_cuda_blas_shape shape;
    cudaDataType in, out;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulAlgo_t algo;
};

/* ---- the library ------------------------------------------------------------------------------------------------- */

static enum atom_status lt_status(const struct atom_cuda_blas *b, cublasStatus_t e, const char *what,
                                  struct atom_error *err)
{
    if (e == CUBLAS_STATUS_SUCCESS)
        return ATOM_OK;
    enum atom_status code = e == CUBLAS_STATUS_NOT_SUPPORTED  ? ATOM_ERR_UNSUPPORTED
                            : e == CUBLAS_STATUS_ALLOC_FAILED ? ATOM_ERR_NOMEM
                                                              : ATOM_ERR_DEVICE;
    return atom_fail(err, code, "cuBLASLt, %s: %s", what, b->lt.status_string(e));
}

static enum atom_status find_functions(struct atom_cuda_blas *b, struct atom_error *err)
{
    const char *missing = NULL;
#define LT_FIND(member, name)                                                                                          \
    b->lt.member = (decltype(b->lt.member))dlsym(b->library, #name);                                                   \
    missing = b->lt.member ? missing : #name;
    LT_FUNCTIONS(LT_FIND)
#undef LT_FIND
    return missing ? atom_fail(err, ATOM_ERR_UNSUPPORTED, "the cuBLASLt that was found lacks %s", missing) : ATOM_OK;
}

static enum atom_status open_library(struct atom_cuda_blas *b, struct atom_error *err)
{
    for (size_t i = 0; i < sizeof lt_names / sizeof *lt_names && !b->library; i++)
        b->library = dlopen(lt_names[i], RTLD_NOW | RTLD_LOCAL);
    if (!b->library)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "cuBLASLt, which multiplies 16-bit matrices, cannot be opened: tried " LT_NAMES);
    return find_functions(b, err);
}

extern "C" enum atom_status atom_cuda_blas_open(struct atom_cuda_blas **out, struct atom_error *err)
{
    if (!atom_cuda_opened())
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    struct atom_cuda_blas *b = (struct atom_cuda_blas *)calloc(1, sizeof *b);
    if (!b)
        return atom_fail_nomem(err, sizeof *b);
    enum atom_status st = open_library(b, err);
    st = st ? st : lt_status(b, b->lt.create(&b->handle), "starting", err);
    st = st ? st : atom_cuda_alloc(WORKSPACE_BYTES, &b->workspace, err);
    if (st) {
        atom_cuda_blas_close(b);
        return st;
    }
    *out = b;
    return ATOM_OK;
}

extern "C" void atom_cuda_blas_close(struct atom_cuda_blas *b)
{
    if (!b)
        return;
    atom_cuda_free(b->workspace);
    if (b->handle)
        b->lt.destroy(b->handle);
    if (b->library)
        dlclose(b->library);
    free(b);
}

extern "C" int atom_cuda_blas_version(const struct atom_cuda_blas *b) { return (int)b->lt.version(); }

/* ---- plans ------------------------------------------------------------------------------------------------------- */

static const char *const type_names[] = {"F16", "BF16", "INT8", "FP8"};

static size_t type_bytes(cudaDataType t)
{
    return t == CUDA_R_32F || t == CUDA_R_32I ? 4 : t == CUDA_R_16F || t == CUDA_R_16BF ? 2 : 1;
}

/* Matrices as cuBLASLt sees them, by columns: ours are theirs transposed, so that D [n, n_tok] = W^T x with W [k, n],
 * x [k, n_tok]. */
struct layouts {
    cublasLtMatrixLayoutOpaque_t w, x, y;
};

static enum atom_status describe(const struct atom_cuda_blas_plan *p, int n_tok, struct layouts *l,
                                 struct atom_error *err)
{
    const struct atom_cuda_blas_shape *s = &p->shape;
    const struct lt *lt = &p->blas->lt;
    uint64_t n = (uint64_t)s->n, k = (uint64_t)s->k, toks = (uint64_t)n_tok;
    cublasStatus_t e = lt->layout_init(&l->w, sizeof l->w, p->in, k, n, (int64_t)k);
    if (!e)
        e = lt->layout_init(&l->x, sizeof l->x, p->in, k, toks, (int64_t)s->x_stride);
    if (!e)
        e = lt->layout_init(&l->y, sizeof l->y, p->out, n, toks, (int64_t)s->y_stride);
    return lt_status(p->blas, e, "describing matrices", err);
}

static void choose_types(struct atom_cuda_blas_plan *p)
{
    static const cudaDataType ins[] = {CUDA_R_16F, CUDA_R_16BF, CUDA_R_8I, CUDA_R_8F_E4M3},
                              outs[] = {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF};
    p->in = ins[p->shape.type];
    p->out = p->shape.type == ATOM_CUDA_BLAS_INT8 ? CUDA_R_32I : outs[p->shape.out];
}

static cublasStatus_t set_operation(struct atom_cuda_blas_plan *p)
{
    const struct lt *lt = &p->blas->lt;
    bool integers = p->in == CUDA_R_8I;
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    int8_t fast = 1;
    cublasStatus_t e = lt->desc_create(&p->desc, integers ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                       integers ? CUDA_R_32I : CUDA_R_32F);
    if (!e)
        e = lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    if (!e && p->in == CUDA_R_8F_E4M3)
        e = lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast);
    if (!e && p->shape.bias)
        e = lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias);
    if (!e && p->shape.bias)
        e = lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &p->out, sizeof p->out);
    return e;
}

static enum atom_status candidates(const struct atom_cuda_blas_plan *p, cublasLtMatmulHeuristicResult_t *found,
                                   int *n_found, struct atom_error *err)
{
    const struct lt *lt = &p->blas->lt;
    const struct atom_cuda_blas_shape *s = &p->shape;
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreference_t pref = NULL;
    size_t room = WORKSPACE_BYTES;
    uint32_t aligned = 16;
    struct layouts l;
    *n_found = 0;
    enum atom_status st = describe(p, s->n_tok, &l, err);
    if (st)
        return st;
    cublasStatus_t e = lt->preference_create(&pref);
    if (!e)
        e = lt->preference_set(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
    for (int i = 0; i < 4 && !e; i++)
        e = lt->preference_set(pref, alignments[i], &aligned, sizeof aligned);
    if (!e)
        e = lt->candidates(p->blas->handle, p->desc, &l.w, &l.x, &l.y, &l.y, pref, MAX_CANDIDATES, found, n_found);
    if (pref)
        lt->preference_destroy(pref);
    if (e == CUBLAS_STATUS_NOT_SUPPORTED || (!e && !*n_found))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "cuBLASLt has no %s product of %d rows of %d channels by %d tokens with results of this type",
                         type_names[s->type], s->n, s->k, s->n_tok);
    return lt_status(p->blas, e, "asking for algorithms", err);
}

static cublasStatus_t multiply(const struct atom_cuda_blas_job *j, struct layouts *l, atom_cuda_stream s)
{
    const struct atom_cuda_blas_plan *p = j->plan;
    static const float one = 1.0f, none = 0.0f;
    static const int one_int = 1, none_int = 0;
    bool integers = p->in == CUDA_R_8I;
    const void *alpha = integers ? (const void *)&one_int : (const void *)&one;
    const void *beta = integers ? (const void *)&none_int : j->add ? (const void *)&one : (const void *)&none;
    cublasLtMatmulDesc_t desc = p->desc;
    if (p->shape.bias) {
        cublasStatus_t e = p->blas->lt.desc_set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &j->bias, sizeof j->bias);
        if (e)
            return e;
    }
    return p->blas->lt.matmul(p->blas->handle, desc, alpha, j->w, &l->w, j->x, &l->x, beta, j->add ? j->add : j->y,
                              &l->y, j->y, &l->y, &p->algo, p->blas->workspace, WORKSPACE_BYTES, s);
}

/* Matrices to time on: bytes of 0x11 are small numbers in every type. `flush` is written between two runs, so that
 * weights come from memory, as they do in a model. */
struct trial {
    void *x, *w, *y, *bias, *flush;
    size_t flush_bytes;
    struct atom_cuda_timer *timer;
};

static void drop_trial(struct trial *t)
{
    atom_cuda_free(t->x);
    atom_cuda_free(t->w);
    atom_cuda_free(t->y);
    atom_cuda_free(t->bias);
    atom_cuda_free(t->flush);
    atom_cuda_timer_free(t->timer);
    memset(t, 0, sizeof *t);
}

static bool make_trial(const struct atom_cuda_blas_plan *p, struct trial *t)
{
    const struct atom_cuda_blas_shape *s = &p->shape;
    size_t toks = (size_t)s->n_tok, in = type_bytes(p->in), out = type_bytes(p->out);
    size_t n_bytes[] = {toks * s->x_stride * in, (size_t)s->n * (size_t)s->k * in, toks * s->y_stride * out,
                        (size_t)s->n * out};
    void **to[] = {&t->x, &t->w, &t->y, &t->bias};
    enum atom_status st = ATOM_OK;
    memset(t, 0, sizeof *t);
    t->flush_bytes = 2 * atom_cuda_opened()->l2_bytes;
    for (int i = 0; i < 4 && !st; i++) {
        st = atom_cuda_alloc(n_bytes[i], to[i], NULL);
        st = st ? st : atom_cuda_fill(*to[i], 0x11, n_bytes[i], NULL);
    }
    st = st ? st : atom_cuda_alloc(t->flush_bytes, &t->flush, NULL);
    st = st ? st : atom_cuda_timer_create(&t->timer, NULL);
    if (st)
        drop_trial(t);
    return !st;
}

/* The fastest of a few runs; a candidate that fails takes for ever. */
static double time_candidate(const struct atom_cuda_blas_plan *p, const struct trial *t)
{
    double best = 1e30, seconds;
    struct layouts l;
    const struct atom_cuda_blas_job job = {p, p->shape.n_tok, t->x, t->w, t->y, t->bias, p->shape.add ? t->y : NULL};
    if (describe(p, p->shape.n_tok, &l, NULL))
        return best;
    for (int i = 0; i < TIMED_REPEATS; i++) {
        if (cudaMemsetAsync(t->flush, i, t->flush_bytes, NULL) || atom_cuda_timer_start(t->timer, NULL, NULL) ||
            multiply(&job, &l, NULL) || atom_cuda_timer_stop(t->timer, NULL, &seconds, NULL))
            return 1e30;
        if (i && seconds < best) /* the first may bring a kernel to the device */
            best = seconds;
    }
    return best;
}

static void choose(struct atom_cuda_blas_plan *p, const cublasLtMatmulHeuristicResult_t *found, int n_found)
{
    struct trial t;
    int best = 0;
    double least = 1e30;
    if (n_found > 1 && make_trial(p, &t)) {
        for (int i = 0; i < n_found; i++) {
            p->algo = found[i].algo;
            double seconds = found[i].state ? 1e30 : time_candidate(p, &t);
            if (seconds < least) {
                least = seconds;
                best = i;
            }
        }
        drop_trial(&t);
    }
    p->algo = found[best].algo;
}

static enum atom_status check_shape(const struct atom_cuda_blas_shape *s, struct atom_error *err)
{
    if (s->n < 1 || s->k < 1 || s->n_tok < 1)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "a product of %d rows, %d channels, %d tokens: expected 1 or more of each", s->n, s->k,
                         s->n_tok);
    if ((s->x_stride && s->x_stride < (size_t)s->k) || (s->y_stride && s->y_stride < (size_t)s->n))
        return atom_fail(
            err, ATOM_ERR_INVALID,
            "rows of %d channels and %d results lie %zu and %zu apart: expected no less than they are long", s->k, s->n,
            s->x_stride, s->y_stride);
    if (s->type >= ATOM_CUDA_BLAS_INT8 && (s->bias || s->add))
        return atom_fail(err, ATOM_ERR_INVALID, "%s products take neither bias nor anything to add",
                         type_names[s->type]);
    return ATOM_OK;
}

extern "C" enum atom_status atom_cuda_blas_plan_create(struct atom_cuda_blas *b,
                                                       const struct atom_cuda_blas_shape *shape,
                                                       struct atom_cuda_blas_plan **out, struct atom_error *err)
{
    cublasLtMatmulHeuristicResult_t found[MAX_CANDIDATES];
    int n_found = 0;
    enum atom_status st = check_shape(shape, err);
    if (st)
        return st;
    struct atom_cuda_blas_plan *p = (struct atom_cuda_blas_plan *)calloc(1, sizeof *p);
    if (!p)
        return atom_fail_nomem(err, sizeof *p);
    p->blas = b;
    p->shape = *shape;
    p->shape.x_stride = shape->x_stride ? shape->x_stride : (size_t)shape->k;
    p->shape.y_stride = shape->y_stride ? shape->y_stride : (size_t)shape->n;
    choose_types(p);
    st = lt_status(b, set_operation(p), "describing a product", err);
    st = st ? st : candidates(p, found, &n_found, err);
    if (st) {
        atom_cuda_blas_plan_free(p);
        return st;
    }
    choose(p, found, n_found);
    *out = p;
    return ATOM_OK;
}

extern "C" void atom_cuda_blas_plan_free(struct atom_cuda_blas_plan *p)
{
    if (!p)
        return;
    if (p->desc)
        p->blas->lt.desc_destroy(p->desc);
    free(p);
}

extern "C" enum atom_status atom_cuda_blas_run(const struct atom_cuda_blas_job *j, atom_cuda_stream s,
                                               struct atom_error *err)
{
    const struct atom_cuda_blas_plan *p = j->plan;
    struct layouts l;
    if (j->n_tok < 1 || j->n_tok > p->shape.n_tok)
        return atom_fail(err, ATOM_ERR_INVALID, "%d tokens for a plan of %d", j->n_tok, p->shape.n_tok);
    if (!j->bias != !p->shape.bias || !j->add != !p->shape.add)
        return atom_fail(err, ATOM_ERR_INVALID, "a product's bias and what is added are given as its plan says");
    if (((uintptr_t)j->x | (uintptr_t)j->w | (uintptr_t)j->y | (uintptr_t)j->add | (uintptr_t)j->bias) % 16)
        return atom_fail(err, ATOM_ERR_INVALID, "the matrices of a product lie at 16-byte addresses");
    enum atom_status st = describe(p, j->n_tok, &l, err);
    return st ? st : lt_status(p->blas, multiply(j, &l, s), "multiplying", err);
}
