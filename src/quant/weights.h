/* SPDX-License-Identifier: Apache-2.0 */
/* One linear's weights as integers and scales (docs/design.md, section 3), and round-to-nearest. */
#ifndef ATOM_QUANT_WEIGHTS_H
#define ATOM_QUANT_WEIGHTS_H

#include "kernels/float_formats.h"

struct atom_hessian;

struct atom_weight_options {
    int bits;           /* 8, 4, 3, 2 */
    int group;          /* input channels per scale; 0: all that are no outliers */
    int outliers;       /* of this linear's input: at most k */
    int rows_per_scale; /* C */
    float clip;         /* the ratio, or the upper end of the search */
    bool search;        /* clip is the upper end: each set of C rows takes the ratio that minimizes the group's sum_j
                           H[j,j] (w_j - wq_j)^2 (plain squares without a Hessian), as the weights then are */
    struct atom_number_form form;
};

/* From a scheme with wbits < 16, for a linear with k inputs. */
void atom_weight_options_of(const struct atom_scheme *scheme, int k, struct atom_weight_options *out);

struct atom_qlinear {
    int n, k;           /* outputs, inputs */
    int outliers;       /* the last o of the k */
    int group;          /* inputs per scale; never 0: a whole row is k - o (1 if there is none) */
    int groups;         /* ceil((k - o) / group) */
    int rows_per_scale; /* C */
    int bits;
    struct atom_number_form form;
    float tensor_scale;       /* of NVFP4; else 1 */
    int8_t *q;                /* [n, k - o]; numbers of E2M1 in halves */
    uint16_t *scales;         /* F16, or the codes of atom_scale_code: [ceil(n / C), groups] */
    int8_t *outlier_q;        /* [n, o], or E4M3 codes; NULL when o is 0, or outliers have 16 bits */
    uint16_t *outlier_scales; /* F16 [n]; NULL as well */
    uint16_t *outlier_halves; /* F16 [n, o]: outliers of 16 bits; else NULL */
};

/* Checks the options and makes room for an [n, k] linear; the values are not set. `name` is for messages. */
enum atom_status atom_qlinear_create(const char *name, int n, int k, const struct atom_weight_options *opt,
                                     struct atom_qlinear **out, struct atom_error *err);
void atom_qlinear_free(struct atom_qlinear *q);

/* Finds the tensor scale, where the format has one, from w [n, k]. */
void atom_qlinear_measure(struct atom_qlinear *q, const float *w);

/* What one of q->q counts, and a group's scale, as floats. */
static inline float atom_weight_unit(enum atom_format format) { return format == ATOM_FORMAT_INT ? 1.0f : 0.5f; }
static inline float atom_weight_scale(const struct atom_qlinear *q, uint16_t code)
{
    if (q->form.format == ATOM_FORMAT_INT)
        return atom_f16_float(code);
    return atom_scale_float(q->form.format, code, q->tensor_scale);
}

/* Rows [first, first + n) read back to out [n, k], in stored order. */
void atom_qlinear_floats(const struct atom_qlinear *q, int first, int n, float *out);

/* Bits per weight as packed on disk, scales included. */
double atom_qlinear_bits(const struct atom_qlinear *q);

/* A NaN or an infinity in w [n, k] is ATOM_ERR_NUMERIC naming the tensor. */
enum atom_status atom_weights_check(const char *name, const float *w, int n, int k, struct atom_error *err);

/* ATOM_ERR_NUMERIC naming the tensor where half precision does not hold a scale, which then is its largest number,
 * 65504, or an outlier of 16 bits. Both functions that make a linear for good ask for it. */
enum atom_status atom_qlinear_fits(const char *name, const struct atom_qlinear *q, struct atom_error *err);

/* Rounds w [n, k] (columns in stored order) to nearest. `hessian` weighs the clip search and may be NULL. Checks w
 * itself. */
enum atom_status atom_quantize_rtn(const char *name, const float *w, int n, int k,
                                   const struct atom_weight_options *opt, const struct atom_hessian *hessian,
                                   struct atom_qlinear **out, struct atom_error *err);

/* The same with the clip search weighed by weight [k], stored order; NULL: alike. Scales that half precision does not
 * hold are cut: for trials. */
enum atom_status atom_quantize_weighed(const char *name, const float *w, int n, int k,
                                       const struct atom_weight_options *opt, const float *weight,
                                       struct atom_qlinear **out, struct atom_error *err);

/* ||(W - Wq) X|| / ||W X|| = sqrt(tr(E H E') / tr(W H W')); of the weights themselves when hessian is NULL; 0 when the
 * denominator is. */
enum atom_status atom_qlinear_error(const struct atom_qlinear *q, const float *w, const struct atom_hessian *hessian,
                                    double *out, struct atom_error *err);

#endif
