/* SPDX-License-Identifier: Apache-2.0 */
/* Atom: quantize, evaluate and run Llama-family models at 4 bits.
 *
 * Every function that can fail returns enum atom_status and writes a sentence into `err` (which may be NULL).
 * On failure out parameters are left untouched and nothing needs to be freed. Objects are opaque; close and free
 * accept NULL. A model and a tokenizer may be shared by threads; a session belongs to one thread at a time.
 * The library prints nothing and never exits: progress is told through callbacks. */
#ifndef ATOM_ATOM_H
#define ATOM_ATOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ATOM_API __attribute__((visibility("default")))
#else
#define ATOM_API
#endif

#define ATOM_VERSION "0.1.0"

/* ---- status ---------------------------------------------------------------------------------------------------- */

enum atom_status {
    ATOM_OK = 0,
    ATOM_ERR_INVALID,     /* an argument or option is out of range */
    ATOM_ERR_IO,          /* open, read, write or rename failed */
    ATOM_ERR_NOSPACE,     /* the disk is full */
    ATOM_ERR_FORMAT,      /* a file does not say what it should */
    ATOM_ERR_UNSUPPORTED, /* well-formed, but not done here */
    ATOM_ERR_NOMEM,
    ATOM_ERR_NUMERIC,   /* a NaN or an infinity where a number was needed */
    ATOM_ERR_CAPACITY,  /* more tokens or sequences than were asked for at creation */
    ATOM_ERR_CANCELLED, /* a callback asked to stop */
    ATOM_ERR_DEVICE     /* a GPU or its driver failed */
};

struct atom_error {
    enum atom_status code;
    char message[1000];
};

/* A short word for a status ("io", "format", ...). Never NULL. */
ATOM_API const char *atom_status_name(enum atom_status status);
ATOM_API const char *atom_version(void);

/* ---- process-wide runtime ---------------------------------------------------------------------------------------- */

struct atom_runtime_options {
    int threads; /* 0: one per processor this process may use */
    /* NULL: the best of "scalar", "avx2", "avxvnni" and "avx512" that is here, which all give the same bits; a name:
     * that one. Or "avx512bf16": linears of bfloat16 weights round their inputs to bfloat16 too, twice as fast and with
     * bits of their own. */
    const char *cpu;
};

/* Chooses the tier and starts the thread pool. Call once, before any other call that computes; `opt` may be NULL.
 * A second call replaces tier and pool; no other call may run meanwhile. */
ATOM_API enum atom_status atom_runtime_init(const struct atom_runtime_options *opt, struct atom_error *err);
ATOM_API void atom_runtime_fini(void);
ATOM_API int atom_runtime_threads(void);
ATOM_API const char *atom_runtime_cpu(void); /* the tier's name */

/* ---- progress ---------------------------------------------------------------------------------------------------- */

struct atom_progress {
    const char *phase; /* a few words: "quantize", "perplexity" */
    const char *unit;  /* what done and total count: "layer", "token" */
    double done, total;
    const char *note; /* one finished line worth keeping (an error per linear), or NULL */
};

/* Called from the thread that called the library. Returning false asks the work to stop with ATOM_ERR_CANCELLED. */
typedef bool atom_progress_fn(void *user, const struct atom_progress *p);

/* ---- tokenizer --------------------------------------------------------------------------------------------------- */

struct atom_tokenizer;

/* `path` is a tokenizer.json or a directory that holds one. */
ATOM_API enum atom_status atom_tokenizer_open(const char *path, struct atom_tokenizer **out, struct atom_error *err);
ATOM_API void atom_tokenizer_close(struct atom_tokenizer *tok);
/* One more than the largest id, added tokens included. */
ATOM_API int atom_tokenizer_vocab_size(const struct atom_tokenizer *tok);
/* The id of a token spelled as in tokenizer.json (added tokens first), or -1. */
ATOM_API int atom_tokenizer_token_id(const struct atom_tokenizer *tok, const char *content);
/* True when the post-processor puts a token in front of a text. */
ATOM_API bool atom_tokenizer_adds_bos(const struct atom_tokenizer *tok);

struct atom_ids {
    int32_t *ids;
    size_t n;
};
ATOM_API void atom_ids_free(struct atom_ids *ids);

enum {
    ATOM_ENCODE_POST = 1,     /* run the post-processor (BOS in front, for Llama) */
    ATOM_ENCODE_NO_ADDED = 2, /* treat the spelling of added tokens in the text as plain text */
    ATOM_DECODE_SKIP_SPECIAL = 4
};

/* Text need not end in NUL and may hold NUL bytes. Bytes that are not UTF-8 are an error naming the offset.
 * Threads may encode and decode with one tokenizer at once. */
ATOM_API enum atom_status atom_tokenizer_encode(const struct atom_tokenizer *tok, const char *text, size_t n_bytes,
                                                unsigned flags, struct atom_ids *out, struct atom_error *err);
/* *text is malloc'd, NUL-terminated (n_bytes does not count that); the caller frees it. Ids outside the vocabulary are
 * an error. Bytes that do not form UTF-8 become U+FFFD. */
ATOM_API enum atom_status atom_tokenizer_decode(const struct atom_tokenizer *tok, const int32_t *ids, size_t n,
                                                unsigned flags, char **text, size_t *n_bytes, struct atom_error *err);

/* Decodes token by token: what comes out in total equals atom_tokenizer_decode of all ids, and each piece holds whole
 * UTF-8 characters only. */
struct atom_stream_decoder;
ATOM_API enum atom_status atom_stream_decoder_create(const struct atom_tokenizer *tok, unsigned flags,
                                                     struct atom_stream_decoder **out, struct atom_error *err);
ATOM_API void atom_stream_decoder_free(struct atom_stream_decoder *dec);
/* *text stays the decoder's, valid until the next call; it may be empty. */
ATOM_API enum atom_status atom_stream_decoder_push(struct atom_stream_decoder *dec, int32_t id, const char **text,
                                                   size_t *n_bytes, struct atom_error *err);
/* What was held back (an unfinished character becomes U+FFFD). */
ATOM_API enum atom_status atom_stream_decoder_finish(struct atom_stream_decoder *dec, const char **text,
                                                     size_t *n_bytes, struct atom_error *err);

/* ---- scheme: every parameter of the arithmetic (docs/design.md, section 3) --------------------------------------- */

/* What 4 bits stand for in weights and activations. All but INT are simulated: rounded to the format's numbers, then
 * computed in float32. */
enum atom_format {
    ATOM_FORMAT_INT = 0, /* integers, packed kernels */
    ATOM_FORMAT_FP4,     /* E2M1, a scale per group */
    ATOM_FORMAT_NVFP4,   /* E2M1, an E4M3 scale per 16 and a float one per tensor */
    ATOM_FORMAT_MXFP4    /* E2M1, a power of two per 32 (OCP Microscaling v1.0) */
};

enum atom_kv_rope { ATOM_KV_PRE = 0, ATOM_KV_POST = 1 };
enum { ATOM_ROTATE_QK = 1, ATOM_ROTATE_V = 2 };
/* By what channel sizes are searched for: not at all, max|x| and max|w| (SmoothQuant), root mean square (AWQ). */
enum atom_smooth_search { ATOM_SMOOTH_FIXED = 0, ATOM_SMOOTH_PEAK, ATOM_SMOOTH_RMS };

struct atom_scheme {
    int wbits;          /* 16 (as stored), 8, 4, 3, 2 */
    int abits;          /* 16 (float32), 8, 4, 3 */
    int kvbits;         /* 16 (half precision), 8, 4, 3 */
    int group;          /* input channels per scale; 0: a whole row */
    int outliers;       /* channels per site kept in more bits */
    int outlier_bits;   /* 8 (or 0): INT8, beside float formats E4M3; 16: float, which is simulated too */
    int rows_per_scale; /* output rows per weight scale */
    float act_clip, weight_clip, kv_clip;
    bool clip_search; /* weight_clip is the upper end of a search for each group's best ratio */
    enum atom_kv_rope kv_rope;
    unsigned rotate;  /* ATOM_ROTATE_* */
    int lm_head_bits; /* 16 or 8 */
    bool gptq;
    float smooth; /* strength of the migration of channel sizes inside a group into the weights; 0: none */
    enum atom_smooth_search smooth_search; /* smooth is the upper end of a search for each site's best strength */
    float asymmetric; /* share of the error so far that a linear's weights make up for before GPTQ; 0: none */
    enum atom_format format;
};

struct atom_named_scheme {
    const char *name, *also;   /* also: another name, or NULL */
    const char *about;         /* a line */
    struct atom_scheme scheme; /* outliers -1: as atom_quantize settles it */
};

/* All of them, *n of them. */
ATOM_API const struct atom_named_scheme *atom_named_schemes(int *n);
/* The scheme of a name ("paper", "w8a8", "default" ...). ATOM_ERR_INVALID lists the names there are. */
ATOM_API enum atom_status atom_scheme_named(const char *name, struct atom_scheme *out, struct atom_error *err);

/* ---- quantize ---------------------------------------------------------------------------------------------------- */

struct atom_quantize_options {
    const char *model;         /* Hugging Face directory */
    const char *out;           /* directory to make */
    const char *calib;         /* text file, tokenized as one string with one BOS; NULL when calib_ids is set */
    const char *calib_ids;     /* instead: JSON lines {"ids": [...]}, a window each */
    int samples;               /* windows: the first N of the file */
    int window;                /* tokens a window */
    struct atom_scheme scheme; /* outliers -1: 128, or a quarter of the narrowest site where that is less */
    bool fit;                  /* outliers, group and rows_per_scale become a layer's own size where they are more; else
                                  that is ATOM_ERR_INVALID. For named schemes on small models */
    bool resume;               /* go on from OUT.partial if model, calibration and options are the same */
    bool overwrite;            /* exchange an existing OUT as a whole */
    atom_progress_fn *progress; /* may be NULL */
    void *user;
};

ATOM_API enum atom_status atom_quantize(const struct atom_quantize_options *opt, struct atom_error *err);

enum atom_out {
    ATOM_OUT_ABSENT,
    ATOM_OUT_WHOLE,  /* atom_quantize made it of the same inputs, and its files are as they were written */
    ATOM_OUT_DAMAGED /* they are not: it is to be made again, with overwrite */
};
struct atom_quantize_found {
    enum atom_out out;
    char damage[500]; /* a sentence, where it is damaged */
};

/* Refuses what atom_quantize would refuse before it begins: options, model, calibration file. Then says what OUT is;
 * one of other inputs, and with `resume` such an unfinished one, is ATOM_ERR_INVALID. Reads all of OUT, and the model
 * once, where OUT is there. */
ATOM_API enum atom_status atom_quantize_check(const struct atom_quantize_options *opt, struct atom_quantize_found *out,
                                              struct atom_error *err);

/* ---- export ------------------------------------------------------------------------------------------------------ */

struct atom_export_options {
    const char *model;          /* directory that atom_quantize made: weights of 4 bits, nothing else quantized */
    const char *out;            /* directory to make */
    const char *format;         /* "compressed-tensors" */
    bool overwrite;             /* exchange an existing OUT as a whole */
    atom_progress_fn *progress; /* may be NULL */
    void *user;
};

/* Writes a checkpoint as other engines read it (docs/checkpoints.md), with the same weights to the last bit. What the
 * format cannot say is ATOM_ERR_UNSUPPORTED. */
ATOM_API enum atom_status atom_export(const struct atom_export_options *opt, struct atom_error *err);

/* ---- model ------------------------------------------------------------------------------------------------------- */

struct atom_model;

struct atom_model_info {
    int hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_position;
    bool quantized;
    struct atom_scheme scheme; /* 16/16/16 for a float model */
    int bos;                   /* -1: none */
    int n_eos;
    int eos[8];
};

/* Opens a Hugging Face directory with its tokenizer: float, or quantized by atom, GPTQ or compressed-tensors
 * (docs/checkpoints.md). */
ATOM_API enum atom_status atom_model_open(const char *dir, struct atom_model **out, struct atom_error *err);
ATOM_API void atom_model_close(struct atom_model *model);
ATOM_API const struct atom_model_info *atom_model_info(const struct atom_model *model);
ATOM_API const struct atom_tokenizer *atom_model_tokenizer(const struct atom_model *model);

/* ---- session: sequences over one paged KV cache -------------------------------------------------------------------
 */

struct atom_session;

struct atom_session_options {
    int max_sequences; /* 0: 1 */
    int max_positions; /* positions of all sequences together; 0: the model's max_position */
    int step_tokens;   /* most tokens in one step; 0: 512 */
};

/* New tokens of one sequence in a step. */
struct atom_step_seq {
    int sequence; /* from atom_session_add */
    const int32_t *tokens;
    int n_tokens;
    enum atom_status status; /* out: ATOM_ERR_NUMERIC when this sequence met a NaN or an infinity; it then has ended */
};

ATOM_API enum atom_status atom_session_create(struct atom_model *model, const struct atom_session_options *opt,
                                              struct atom_session **out, struct atom_error *err);
ATOM_API void atom_session_free(struct atom_session *s);
ATOM_API enum atom_status atom_session_add(struct atom_session *s, int *sequence, struct atom_error *err);
ATOM_API void atom_session_remove(struct atom_session *s, int sequence);
ATOM_API int atom_session_length(const struct atom_session *s, int sequence);
/* Appends tokens to sequences in one forward pass; prompts and single tokens mix freely. ATOM_ERR_NUMERIC: the
 * sequences with a status have ended (remove is all they take), err names layer and site of one, and the others have
 * grown. After any other failure everything is as before. */
ATOM_API enum atom_status atom_session_step(struct atom_session *s, struct atom_step_seq *seqs, int n_seqs,
                                            struct atom_error *err);
/* Logits [n, vocab] after token rows[i] of the last step (rows count tokens in the order given to the step).
 * ATOM_ERR_NUMERIC when one is not finite. */
ATOM_API enum atom_status atom_session_logits(struct atom_session *s, const int *rows, int n, float *logits,
                                              struct atom_error *err);

/* ---- generate ---------------------------------------------------------------------------------------------------- */

struct atom_sampling {
    float temperature; /* 0: greedy */
    float top_p;       /* 0 or 1: off */
    int top_k;         /* 0: off */
    uint64_t seed;
};

/* One token from logits [n]; `counter` numbers the draws of a sequence, so a seed gives the same text whatever the
 * batch. scratch holds n pairs (see atom_sample_scratch_bytes). */
ATOM_API size_t atom_sample_scratch_bytes(int n);
ATOM_API int32_t atom_sample(const struct atom_sampling *sp, uint64_t counter, const float *logits, int n,
                             void *scratch);

/* Called after every token, with the text that it made certain (whole UTF-8 characters, no NUL after them, often
 * empty), and between the steps of a long prompt with none. Returning false ends the text here. */
typedef bool atom_text_fn(void *user, const char *text, size_t n_bytes);

struct atom_generate_options {
    int max_tokens;  /* 0: as many as the model has positions */
    int step_tokens; /* prompt tokens in one forward pass; 0: 512 */
    struct atom_sampling sampling;
    const char *const *stop; /* text ends before the first of these; UTF-8, not empty; NULL when n_stop is 0 */
    int n_stop;
    bool ignore_eos;       /* go on after the model's end-of-text ids */
    atom_text_fn *on_text; /* may be NULL */
    void *user;
};

enum atom_finish {
    ATOM_FINISH_STOP,     /* an end-of-text id, or a stop string */
    ATOM_FINISH_LENGTH,   /* max_tokens, or the model's last position */
    ATOM_FINISH_CANCELLED /* on_text returned false */
};

struct atom_generate_result {
    struct atom_ids ids; /* drawn after the prompt, the end-of-text id included */
    char *text;          /* what they add to the prompt's text: no special tokens, nothing from a stop string on */
    size_t n_text_bytes; /* the NUL after them is not counted */
    enum atom_finish finish;
    int prompt_tokens;
    double prefill_seconds, decode_seconds; /* the first token falls into prefill */
};

/* "stop", "length" or "cancelled". */
ATOM_API const char *atom_finish_name(enum atom_finish finish);

/* Continues a prompt of n >= 1 ids. The caller frees *out with atom_generate_result_fini. */
ATOM_API enum atom_status atom_generate(struct atom_model *model, const int32_t *ids, size_t n,
                                        const struct atom_generate_options *opt, struct atom_generate_result *out,
                                        struct atom_error *err);
ATOM_API void atom_generate_result_fini(struct atom_generate_result *r);

struct atom_windows_options {
    int samples, window; /* sequences, and ids of each */
    int batch;           /* sequences in one forward pass; 0: 32. Changes nothing but the time. */
    struct atom_sampling sampling;
    atom_progress_fn *progress;
    void *user;
};

/* Lets the model write: `samples` windows of exactly `window` ids, each from BOS on; after an end-of-text id comes BOS
 * and another text. ids [samples, window] is the caller's. A window depends on the seed and its own number alone (in a
 * float model as far as its logits do). */
ATOM_API enum atom_status atom_sample_windows(struct atom_model *model, const struct atom_windows_options *opt,
                                              int32_t *ids, struct atom_error *err);

/* ---- evaluate ---------------------------------------------------------------------------------------------------- */

struct atom_ppl_options {
    int window;      /* 0: 1024 */
    int stride;      /* tokens from one window's start to the next's; 0: the window */
    int max_windows; /* 0: all */
    atom_progress_fn *progress;
    void *user;
};

struct atom_ppl_result {
    double ppl, nll; /* nll: mean, natural log, per scored token */
    int64_t tokens;  /* scored */
    int64_t windows;
    int64_t dropped; /* tokens at the text's end that fill no window; those that max_windows leaves out do not count */
    /* The same log-likelihood over what the scored tokens add to the text as all are decoded in turn: its bytes, and
     * the words (apart by white space) that begin there. Infinite or NaN where there are none. */
    int64_t bytes, words;
    double bits_per_byte, byte_ppl, word_ppl;
};

/* The text is one string with one BOS, cut into windows that start every `stride` tokens. Each scores the tokens that
 * none before it did, but never its own first: all but that where windows do not overlap, else its last `stride`. */
ATOM_API enum atom_status atom_eval_ppl(struct atom_model *model, const char *text, size_t n_bytes,
                                        const struct atom_ppl_options *opt, struct atom_ppl_result *out,
                                        struct atom_error *err);
/* n windows drawn as GPTQ's code draws its c4, number for number (Python's generator, seed 0): for each, rows are drawn
 * until one has more than `window` ids, its BOS among them, then a place in it. A row is the "text" of a line of JSON.
 * *out gets n * window ids, one window after the other. ATOM_ERR_FORMAT names a line that is no row; ATOM_ERR_INVALID
 * when all rows are shorter, or at one of exactly a window, where the published draw fails too. */
ATOM_API enum atom_status atom_draw_windows(const struct atom_tokenizer *tok, const char *rows, size_t n_bytes, int n,
                                            int window, struct atom_ids *out, struct atom_error *err);
/* As atom_eval_ppl, of ids [n] as they stand, BOS or not. */
ATOM_API enum atom_status atom_eval_ppl_ids(struct atom_model *model, const int32_t *ids, size_t n,
                                            const struct atom_ppl_options *opt, struct atom_ppl_result *out,
                                            struct atom_error *err);

/* How numbers of positions lie. A percentile is interpolated linearly between the two sorted numbers around it. */
struct atom_spread {
    double mean;
    double standard_error; /* of the mean, as if positions were independent; 0 for a single one */
    double min, p0_1, p1, p10, median, p90, p99, p99_9, max;
};

struct atom_kld_options {
    int window;      /* 0: 1024 */
    int max_windows; /* 0: all */
    atom_progress_fn *progress;
    void *user;
};

struct atom_kld_result {
    struct atom_spread kl;     /* KL(A || B) of a position's two distributions, in nats; never below 0 */
    struct atom_spread change; /* log-probability of the token that follows: B's less A's */
    double top1;               /* share of positions where both find the same token likeliest (of equals the first) */
    double nll_a, nll_b;       /* as in atom_ppl_result */
    int64_t tokens, windows, dropped; /* as in atom_ppl_result */
};

/* How far model B (quantized) is from model A (its float original) on a text, windows and positions as in
 * atom_eval_ppl. Both run side by side, window by window: of each position two numbers are kept, and no logits. A and B
 * may be the same model. ATOM_ERR_INVALID when their vocabularies are not the same, token for token, or their
 * tokenizers do not cut the text alike. */
ATOM_API enum atom_status atom_eval_kld(struct atom_model *a, struct atom_model *b, const char *text, size_t n_bytes,
                                        const struct atom_kld_options *opt, struct atom_kld_result *out,
                                        struct atom_error *err);

/* Multiple choice, scored as lm-evaluation-harness does (docs/tasks.md). A record is a line of JSON, an item each, all
 * of one kind; fields that are not named here are ignored. */
enum atom_task_kind {
    ATOM_TASK_CHOICES,     /* {"context", "choices", "gold"}: which choice is likeliest after the context */
    ATOM_TASK_CONTEXTS,    /* {"contexts", "continuation", "gold"}: after which context the continuation is */
    ATOM_TASK_CONTINUATION /* {"context", "continuation"}: whether the model would have written it */
};

/* What one item came to. Everything it points to lives for the call alone. */
struct atom_task_item {
    int line;                     /* counted from 1 */
    const char *subtask;          /* its "task", or NULL */
    int n;                        /* choices, or contexts, or 1 */
    int gold;                     /* -1: ATOM_TASK_CONTINUATION has none */
    const double *loglikelihoods; /* [n] of the continuation, natural logarithm */
    const int *n_tokens;          /* [n] tokens of the continuation */
    int best, best_norm;          /* indices, ties to the first; best_norm -1 unless ATOM_TASK_CHOICES */
    bool right, right_norm;       /* best is gold; ATOM_TASK_CONTINUATION: every token is the likeliest */
    bool cut;                     /* its first tokens are gone */
};
typedef void atom_task_item_fn(void *user, const struct atom_task_item *item);

/* A file as it was read. */
struct atom_task_text {
    const char *name; /* begins the sentences about it; NULL: they begin with "line N" */
    const char *text; /* NULL: there is none */
    size_t n_bytes;
};

struct atom_task_file {
    struct atom_task_text records;
    struct atom_task_text labels; /* a line for each record; piqa and winogrande alone, whose authors keep them apart */
    const char *subject;          /* mmlu: of records that do not name it; may be NULL */
};

/* What records are: items as above, or those of a data set, made into items as the harness words them. The index of a
 * word is the number of its format. */
#define ATOM_TASK_FORMATS "items|arc|blimp|boolq|copa|hellaswag|lambada|mmlu|openbookqa|piqa|winogrande"

/* Asked for each item before any is scored: true with loglikelihoods [n] and, for ATOM_TASK_CONTINUATION, right filled
 * in as an earlier run told them. Such an item is not scored, and not told again. */
typedef bool atom_task_recall_fn(void *user, int line, int n, double *loglikelihoods, bool *right);

struct atom_task_options {
    int format;                            /* of records and examples */
    int n_examples;                        /* solved items in front of each; 255 are the most */
    const struct atom_task_file *examples; /* where they are drawn from; NULL: from the file's other items */
    uint32_t seed;                         /* which are drawn */
    int limit;                             /* score the first N items; 0: all. The others are checked nevertheless */
    bool cut; /* an item longer than the model's positions loses its first tokens, as in the harness */
    atom_task_recall_fn *recall; /* may be NULL */
    void *recall_user;
    atom_task_item_fn *on_item; /* after each item that was scored, in the order of the records; may be NULL */
    void *item_user;
    atom_progress_fn *progress;
    void *user;
};

/* Shares lie between 0 and 1; NAN is what has no meaning: acc_norm unless ATOM_TASK_CHOICES, ppl unless
 * ATOM_TASK_CONTINUATION, and standard errors of a single item. */
struct atom_task_score {
    char *subtask; /* NULL: all items */
    int64_t n;
    double acc, acc_stderr;
    double acc_norm, acc_norm_stderr; /* log-likelihoods divided by the choice's characters, its first space aside */
    int64_t cut;                      /* items that lost their first tokens */
    double ppl, ppl_stderr;           /* exp of the mean negative log-likelihood of an item's continuation */
};

struct atom_task_result {
    enum atom_task_kind kind;
    struct atom_task_score all;
    struct atom_task_score *subtasks; /* by first appearance */
    int n_subtasks;                   /* 0: the items name none */
};
ATOM_API void atom_task_result_free(struct atom_task_result *r); /* what it points to */

/* ATOM_ERR_FORMAT with line and reason for whatever is not an item, before anything is scored; ATOM_ERR_CAPACITY for an
 * item that is longer than the model's positions, its examples included, unless it may be cut. `opt` may be NULL. */
ATOM_API enum atom_status atom_eval_task(struct atom_model *model, const struct atom_task_file *file,
                                         const struct atom_task_options *opt, struct atom_task_result *out,
                                         struct atom_error *err);

/* A JSON object that is the same for two runs exactly when what they tell of each item is: hashes of the model in `dir`
 * and of the files, the options, the program's version. malloc'd; the caller frees it. */
ATOM_API enum atom_status atom_task_signature(const char *dir, const struct atom_task_file *file,
                                              const struct atom_task_options *opt, char **json, struct atom_error *err);

/* ---- ablate ------------------------------------------------------------------------------------------------------ */

/* The ladder from the float network over the paper's recipe to the default one (docs/ablation.md): each rung is the one
 * before it with one thing changed, given the same bits. */
struct atom_rung {
    const char *name;   /* "groups" */
    const char *adds;   /* for people: "+ groups of 128 channels" */
    const char *recipe; /* which recipe the rung is, at 4 bits, or NULL */
};
ATOM_API const struct atom_rung *atom_rungs(int *n);

/* What a rung came to. */
struct atom_ablate_row {
    int rung;                   /* index in atom_rungs */
    int bits;                   /* as in the options, of the float rung too */
    struct atom_scheme scheme;  /* outliers settled */
    struct atom_ppl_result ppl; /* zeros with `why` */
    const char *why;            /* a number that was not finite is why there is no perplexity; NULL: there is */
    const char *damage;         /* what was wrong with a kept checkpoint, which was made anew; NULL: nothing */
    double quantize_seconds, eval_seconds;
    bool remembered; /* an earlier run in the same directory did it */
};
typedef void atom_ablate_fn(void *user, const struct atom_ablate_row *row);

struct atom_ablate_options {
    const char *model; /* Hugging Face directory, float */
    const char *calib; /* text file, as in atom_quantize_options */
    const char *text;  /* is scored, as in atom_eval_ppl; need not end in NUL */
    size_t n_bytes;
    const char *text_name;  /* begins sentences about it; may be NULL */
    int bits;               /* of weights, activations and, where it is quantized, the KV cache: 4 or 3 */
    unsigned rungs;         /* bit i: rung i of atom_rungs; 0: all */
    int samples, window;    /* windows to calibrate on (0: 64); tokens a window (0: 1024), of the scored text too */
    int max_windows;        /* scored; 0: all */
    const char *dir;        /* where to work, made if need be: what is finished there, or half so, is not done again.
                               NULL: a temporary directory in $TMPDIR that is gone afterwards */
    bool keep;              /* checkpoints stay in dir; else one is there at a time */
    atom_ablate_fn *on_row; /* after each rung, in order */
    void *row_user;
    atom_progress_fn *progress;
    void *user;
};

/* Quantizes the model rung by rung and measures perplexity, all on integers as they are served. Outlier channels are
 * 128 or a quarter of the narrowest site, whichever is less. ATOM_ERR_INVALID when `dir` holds another ablation's
 * checkpoint. */
ATOM_API enum atom_status atom_ablate(const struct atom_ablate_options *opt, struct atom_error *err);

/* Draws rows [n], of one ladder after another, into an SVG at `path`, which appears whole or not at all. With n 0
 * nothing is drawn, but whether it could be is found out. ATOM_ERR_UNSUPPORTED when gnuplot is not here. */
ATOM_API enum atom_status atom_ablate_plot(const struct atom_ablate_row *rows, int n, const char *title,
                                           const char *path, struct atom_error *err);

/* ---- inspect ----------------------------------------------------------------------------------------------------- */

/* A JSON object that says what a checkpoint holds, without loading it. malloc'd; the caller frees it.
 *
 *     dir, quantized, format ("gptq", "compressed-tensors"; null: Atom's own, or float), config {hidden, intermediate,
 * layers, heads ...}, scheme {as in quantization_config} bytes {linears, linears_bf16 (2 a weight), embeddings, head,
 * norms, orders, other, total} bits_per_weight          of the linears, scales and outliers included kv_bytes_per_token
 * keys and values of all layers; kv_bytes_per_token_f16: the same in half precision n_tensors, tensors [{name, dtype,
 * shape, bytes, kind, file}] linears [{name, shape, bits_per_weight, error, bytes}]; error: relative, on the
 * calibration text, or null and with a format {form ("4 bits", "8 bits", "float32", "as stored"), why (or null),
 * loaded_bytes}: how it runs. For that, scales, zero points and g_idx are read too. */
ATOM_API enum atom_status atom_inspect(const char *dir, char **json, struct atom_error *err);

struct atom_inspect_plot_options {
    const char *model; /* directory, float or quantized */
    const char *calib; /* text file for what only activations show: channel sizes, the outliers' share. NULL: without */
    int samples;       /* its first windows, as far as there are as many; 0: 8 */
    int window;        /* tokens a window; 0: 1024, or the model's positions */
    atom_progress_fn *progress;
    void *user;
};

/* Draws a checkpoint into an SVG at `path`, which appears whole or not at all (docs/inspecting.md): of a quantized one
 * the error of each linear and where the outlier channels lie; with a calibration text, of any, each channel's root
 * mean square at each site, in the model's order and by size, and the share of energy that outliers have. Outliers of a
 * float model are those that the recipes would choose. ATOM_ERR_INVALID when there is nothing to draw: a float model
 * and no text. ATOM_ERR_UNSUPPORTED when gnuplot is not here. */
ATOM_API enum atom_status atom_inspect_plot(const struct atom_inspect_plot_options *opt, const char *path,
                                            struct atom_error *err);

#ifdef __cplusplus
}
#endif
#endif
