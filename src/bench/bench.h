/* SPDX-License-Identifier: Apache-2.0 */
/* What `atom bench` asks for, and the lines it gets: every measurement is one line, told as it is made. */
#ifndef ATOM_BENCH_BENCH_H
#define ATOM_BENCH_BENCH_H

#include "atom/atom.h"

enum atom_bench_what { ATOM_BENCH_CEILING, ATOM_BENCH_KERNEL, ATOM_BENCH_MODEL, ATOM_BENCH_MEMORY, ATOM_BENCH_LOAD };

/* Which ceiling a time is compared with. */
enum atom_bench_bound { ATOM_BOUND_NONE, ATOM_BOUND_INT8, ATOM_BOUND_F32, ATOM_BOUND_BF16, ATOM_BOUND_READ };

/* Fields that a kind of line does not use are 0 or NULL; texts live as long as the call of atom_bench_line_fn. */
struct atom_bench_line {
    enum atom_bench_what what;
    const char *shape; /* not of a ceiling */
    const char *name;  /* of a ceiling; of an operation; "prefill" or "decode" */
    const char *how;   /* of a ceiling: instructions; of an operation: what on */
    int threads;
    int tokens; /* of an operation or a prefill; decode: steps */
    int depth;  /* positions that the cache held before */
    int batch;  /* sequences */
    int wbits, abits, kv, head;
    double median_s, fastest_s;
    double ops, bytes; /* done and read in that time, at the least; 0: not counted. Of a ceiling: a second */
    double tok_s;
    enum atom_bench_bound bound;
    double share;   /* of the ceiling, at the median; 0: not known */
    double ceiling; /* of a decode, whose share is of it: bytes a second that reading the weights alone reached around
                       it */
    int checked[4]; /* of an operation: numbers of tokens at which it gave the scalar tier's bits; ends with 0 */
    struct {
        double weights, head, embedding, kv, peak; /* bytes; kv: of 4096 positions */
    } memory;
    double open_s, first_s; /* of a load: until the model was open; from there to the first token */
};

typedef void atom_bench_line_fn(void *user, const struct atom_bench_line *line);

enum { ATOM_BENCH_MAX_LIST = 16 };
struct atom_bench_list {
    int n; /* 0: nobody said */
    int at[ATOM_BENCH_MAX_LIST];
};

struct atom_bench_range {
    const char *what; /* for messages */
    int min, max;
};

/* "1,2,4": whole numbers within a range. */
enum atom_status atom_bench_parse_list(const struct atom_bench_range *range, const char *text,
                                       struct atom_bench_list *out, struct atom_error *err);

/* The phases of a whole model. */
struct atom_bench_plan {
    struct atom_bench_list prefill; /* tokens; 0 among them: none. Nobody said: the shape's */
    struct atom_bench_list decode;  /* steps, likewise. Nobody said: 64, fewer for large batches */
    struct atom_bench_list depth;   /* nobody said: 0 and 1024, to decode 4096 too */
    struct atom_bench_list batch;   /* to decode; nobody said: 1, and 2 to 32 at depth 0 */
    int repeat;                     /* times a phase is run; 0: 3 */
};

struct atom_bench_options {
    const char *const *shapes;
    int n_shapes;
    bool ceilings, kernels, models; /* what to measure */
    int abits, kvbits, head_bits;   /* 4 or 8; 4, 8 or 16; 8 or 16 */
    struct atom_bench_plan plan;
    atom_bench_line_fn *on_line;
    atom_progress_fn *progress; /* may be NULL */
    void *user;                 /* of both */
};

/* Measures on the CPU. Ceilings that a share needs are measured first even where nobody asked for them. An operation
 * that gives other bits than the scalar tier is ATOM_ERR_NUMERIC. */
enum atom_status atom_bench_cpu(const struct atom_bench_options *opt, struct atom_error *err);

/* Makes directory DIR, which must not be there: a checkpoint of random numbers of the one shape named, at the bits that
 * the options name. */
enum atom_status atom_bench_write(const struct atom_bench_options *opt, const char *dir, struct atom_error *err);

/* Reads DIR once, then opens the model in it and goes on to a first token: one line. */
enum atom_status atom_bench_load(const struct atom_bench_options *opt, const char *dir, struct atom_error *err);

/* Draws model lines as an SVG through gnuplot: shares of the ceilings, a panel for each shape. With n 0 nothing is
 * drawn, but whether it could be is found out. */
enum atom_status atom_bench_plot(const struct atom_bench_line *lines, int n, const char *path, struct atom_error *err);

/* A line as one JSON object, malloc'd, with machine, compiler, version and commit; NULL: out of memory. */
char *atom_bench_json(const struct atom_bench_line *line);
/* A line as text for people, a heading in front where one is due; before: the line told last, or NULL. malloc'd. */
char *atom_bench_text(const struct atom_bench_line *line, const struct atom_bench_line *before);

#endif
