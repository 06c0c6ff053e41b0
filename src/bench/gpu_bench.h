/* SPDX-License-Identifier: Apache-2.0 */
/* What `atom bench gpu` asks for, and the lines it gets: every measurement is one line, told as it is made. Options,
 * lines as text and pictures need no device; measuring does. */
#ifndef ATOM_BENCH_GPU_BENCH_H
#define ATOM_BENCH_GPU_BENCH_H

#include "bench/bench.h"

/* ---- lines ---------------------------------------------------------------------------------------------------------
 */

enum atom_gpu_what { ATOM_GPU_CEILING, ATOM_GPU_LINEAR, ATOM_GPU_ROWS, ATOM_GPU_ATTENTION, ATOM_GPU_N_WHATS };
extern const char *const atom_gpu_what_names[ATOM_GPU_N_WHATS];

/* What a device does at best; each is a line of its own, and what times are compared with. */
enum atom_gpu_ceiling {
    ATOM_GPU_NONE,
    ATOM_GPU_READ, /* bytes read */
    ATOM_GPU_COPY, /* bytes read and written */
    ATOM_GPU_INT4,
    ATOM_GPU_INT8,
    ATOM_GPU_FP8,
    ATOM_GPU_FP16,   /* sums in float32 */
    ATOM_GPU_F32,    /* fused multiply-adds outside of the tensor cores, two operations each */
    ATOM_GPU_LAUNCH, /* launches of nothing a second */
    ATOM_GPU_N_CEILINGS
};
extern const char *const atom_gpu_ceiling_names[ATOM_GPU_N_CEILINGS];

/* Integers times integers or floats as the name says; the last three are cuBLASLt's. */
enum atom_gpu_scheme {
    ATOM_GPU_W4A4,
    ATOM_GPU_W4A8,
    ATOM_GPU_W8A8,
    ATOM_GPU_W4A16,
    ATOM_GPU_BLAS_FP16,
    ATOM_GPU_BLAS_INT8,
    ATOM_GPU_BLAS_FP8,
    ATOM_GPU_N_SCHEMES
};
extern const char *const atom_gpu_scheme_names[ATOM_GPU_N_SCHEMES];

struct atom_gpu_machine {
    char device[256];
    char capability[8];        /* "9.0" */
    char driver[32], cuda[16]; /* "580.82", "13.0" */
    char compiler[32];         /* "nvcc 13.0.88" */
};

enum { ATOM_GPU_NAME = 32, ATOM_GPU_WHOSE = 96, ATOM_GPU_HOW = 200 };

/* Fields that a kind of line does not use are 0 or empty. */
struct atom_gpu_line {
    enum atom_gpu_what what;
    const struct atom_gpu_machine *machine;
    char name[ATOM_GPU_NAME];    /* of a ceiling, a scheme or an operation */
    char shape[ATOM_GPU_NAME];   /* of a linear, "11008x4096"; else the model's, "7b" */
    char whose[ATOM_GPU_WHOSE];  /* of a linear: which models have it; of an operation: what on */
    char how[ATOM_GPU_HOW];      /* of a ceiling: instructions; without a time: why there is none */
    int n, k;                    /* rows and channels of a linear */
    int tokens, context, kvbits; /* context: positions before each token */
    bool cold;                   /* inputs come from memory; else they lie in the L2 as far as they fit */
    int launches, repeats;       /* a time is that of so many launches one after the other, divided; so often */
    double median_s, fastest_s;  /* 0: nothing was measured */
    double quantize_s;           /* median: to quantize the activations that this linear takes; 0: they are not */
    double ops, bytes;           /* done and moved in that time, at the least. Of a ceiling: a second */
    enum atom_gpu_ceiling bound;
    double share;    /* of the ceiling, at the median; 0: not known */
    double clock_hz; /* of a ceiling: what the multiprocessors ran at */
    int checked;     /* results compared with the formula */
};

typedef void atom_gpu_line_fn(void *user, const struct atom_gpu_line *line);

/* A line as one JSON object, malloc'd; NULL: out of memory. */
char *atom_gpu_json(const struct atom_gpu_line *line);
/* Tells the lines of a file that holds such objects, one a line. ATOM_ERR_FORMAT names a line that is none. The machine
 * is the first line's; it stays until the next call. */
enum atom_status atom_gpu_read(const char *path, atom_gpu_line_fn *on_line, void *user, struct atom_error *err);
/* Whether two lines stand in one table. */
bool atom_gpu_same_table(const struct atom_gpu_line *a, const struct atom_gpu_line *b);
/* The table of lines [n >= 1] that stand in one, in the order in which they were told; malloc'd; NULL: out of memory.
 */
char *atom_gpu_text(const struct atom_gpu_line *lines, int n);

/* Draws the cold linears among the lines as an SVG through gnuplot: operations a second by tokens, a panel for each
 * shape, a curve for each scheme. With n 0 nothing is drawn, but whether it could be is found out. */
enum atom_status atom_gpu_plot(const struct atom_gpu_line *lines, int n, const char *path, struct atom_error *err);

/* ---- asking --------------------------------------------------------------------------------------------------------
 */

struct atom_gpu_options {
    const char *const *shapes;               /* "7b": a model's linears; "11008x4096": rows by channels */
    int n_shapes;                            /* 0: 7b and 8b */
    struct atom_bench_list tokens;           /* nobody said: 1, 4, 16 and so on to 4096 */
    const char *schemes;                     /* "w4a4,fp16"; NULL: all */
    bool ceilings, linears, rows, attention; /* what to measure */
    int repeat;                              /* times a measurement is repeated; 0: 21 */
    int device;
    atom_gpu_line_fn *on_line;
    atom_progress_fn *progress; /* may be NULL */
    void *user;                 /* of both */
};

/* Whether shapes and schemes are known: ATOM_ERR_INVALID with a sentence. */
enum atom_status atom_gpu_check(const struct atom_gpu_options *opt, struct atom_error *err);

/* Measures on CUDA device opt->device; ATOM_ERR_UNSUPPORTED without one. Each kernel's results are first compared with
 * the formula on a sample: ATOM_ERR_NUMERIC names kernel, shape and element. */
enum atom_status atom_bench_gpu(const struct atom_gpu_options *opt, struct atom_error *err);

#endif
