/* SPDX-License-Identifier: Apache-2.0 */
/* The row kernels, written once over the sixteen lanes of a vec header and compiled once per tier.
 * The including file has included its vec header first. Sums run in 16 interleaved lanes folded 8-4-2-1; everything
 * else is lane by lane, so the lane count shows in no result. */
#include "base/half.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

/* Calls body(i, n) for i = 0, 16, ... with n = 16, and once more with the rest. */
#define FOR_VEC(i, n, total) for (int i = 0, n; i < (total) && (n = (total)-i < 16 ? (total)-i : 16, 1); i += 16)

VEC_FN vec load_some(const float *p, int n) { return n == 16 ? v_load(p) : v_load_n(p, n); }
VEC_FN void store_some(float *p, vec a, int n)
{
    if (n == 16)
        v_store(p, a);
    else
        v_store_n(p, a, n);
}

/* exp(x), relative error under 2 ulp for x in [-87, 88]; 0 below -87, capped above 88.
 * x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial of degree 6 for exp(r). */
VEC_FN vec exp_vec(vec x)
{
    const vec low = v_set(-87.0f);
    vec y = v_min(v_max(x, low), v_set(88.0f));
    vec n = v_int(v_round(v_mul(y, v_set(1.44269504f))));
    vec r = v_fma(n, v_set(-0.693359375f), y);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vec p = v_set(1.0f / 720);
    p = v_fma(p, r, v_set(1.0f / 120));
    p = v_fma(p, r, v_set(1.0f / 24));
    p = v_fma(p, r, v_set(1.0f / 6));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    vec two_n = i_bits(i_shl(i_add(v_round(n), i_set(127)), 23));
    return v_keep_ge(x, low, v_mul(p, two_n));
}

static float sum_squares(const float *x, int n)
{
    vec sum = v_set(0.0f);
    FOR_VEC(i, m, n)
    {
        vec a = load_some(x + i, m);
        sum = v_fma(a, a, sum);
    }
    return v_fold_add(sum);
}

static void norm(const float *x, const int32_t *order, const float *weight, float r, int n, float *out)
{
    int i = 0;
    vec by = v_set(r);
    for (; i + 16 <= n; i += 16) {
        vec a = order ? v_gather(x, order + i) : v_load(x + i);
        v_store(out + i, v_mul(v_mul(a, by), v_load(weight + i)));
    }
    for (; i < n; i++)
        out[i] = (x[order ? order[i] : i] * r) * weight[i];
}

/* Largest |x| as bits: at or above the bits of infinity when a number is not finite. */
static int32_t abs_max_bits(const float *x, int n)
{
    ivec m = i_set(0);
    FOR_VEC(i, c, n) m = i_max(m, i_and(v_bits(load_some(x + i, c)), i_set(0x7FFFFFFF)));
    return i_fold_max(m);
}

static int32_t quantize_run(const float *x, const struct atom_run *run, float inv, int bits, int8_t *q)
{
    int32_t top = (1 << (bits - 1)) - 1;
    ivec lo = i_set(-top - 1), hi = i_set(top), sum = i_set(0);
    vec by = v_set(inv);
    FOR_VEC(i, m, run->len)
    {
        ivec v = i_min(i_max(v_round(v_mul(load_some(x + run->first + i, m), by)), lo), hi);
        sum = i_add(sum, v);
        int8_t bytes[16];
        i_store_8(bytes, v);
        int room = run->padded - i;
        if (room >= 16)
            memcpy(q + run->offset + i, bytes, 16);
        else
            memcpy(q + run->offset + i, bytes, (size_t)room);
    }
    return i_fold_add(sum);
}

static bool quantize(const float *x, const struct atom_layout *lay, int bits, float clip, int8_t *q, float *scales,
                     int32_t *sums)
{
    if (abs_max_bits(x, lay->k) >= 0x7F800000) {
        memset(q, 0, (size_t)lay->k_padded);
        memset(scales, 0, (size_t)lay->n_scales * sizeof *scales);
        memset(sums, 0, (size_t)lay->n_runs * sizeof *sums);
        return false;
    }
    for (int r = 0; r < lay->n_runs;) {
        const struct atom_run *run = &lay->runs[r];
        int end = r + 1, b = run->scale == lay->n_groups ? 8 : bits;
        while (end < lay->n_runs && lay->runs[end].scale == run->scale)
            end++;
        int len = lay->runs[end - 1].first + lay->runs[end - 1].len - run->first;
        int32_t max_bits = abs_max_bits(x + run->first, len);
        float max, s = 1.0f;
        memcpy(&max, &max_bits, sizeof max);
        if (max >= 0x1p-100f)
            s = (run->scale == lay->n_groups ? max : clip * max) / (float)((1 << (b - 1)) - 1);
        scales[run->scale] = s;
        for (float inv = 1.0f / s; r < end; r++)
            sums[r] = quantize_run(x, &lay->runs[r], inv, b, q);
    }
    return true;
}

static void silu_mul(const float *gate, const float *up, int n, float *out)
{
    const vec one = v_set(1.0f);
    FOR_VEC(i, m, n)
    {
        vec g = load_some(gate + i, m);
        vec e = exp_vec(v_sub(v_set(0.0f), g));
        store_some(out + i, v_mul(v_div(g, v_add(one, e)), load_some(up + i, m)), m);
    }
}

static void rope(float *x, const float *cos, const float *sin, int half)
{
    FOR_VEC(i, m, half)
    {
        vec a = load_some(x + i, m), b = load_some(x + half + i, m);
        vec c = load_some(cos + i, m), s = load_some(sin + i, m);
        store_some(x + i, v_sub(v_mul(a, c), v_mul(b, s)), m);
        store_some(x + half + i, v_fma(b, c, v_mul(a, s)), m);
    }
}

static const float upper_minus[4][16] = {{1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
                                         {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
                                         {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
                                         {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1}};

/* Butterflies of spans 1 to 8 inside a register: lanes a, b of a pair become a + b, a - b. */
VEC_FN vec butterflies_inside(vec a)
{
    a = v_fma(a, v_load(upper_minus[0]), v_swap(a, 1));
    a = v_fma(a, v_load(upper_minus[1]), v_swap(a, 2));
    a = v_fma(a, v_load(upper_minus[2]), v_swap(a, 4));
    return v_fma(a, v_load(upper_minus[3]), v_swap(a, 8));
}

static void hadamard(float *x, int n)
{
    vec by = v_set(1.0f / sqrtf((float)n));
    for (int i = 0; i < n; i += 16)
        v_store(x + i, butterflies_inside(v_load(x + i)));
    for (int h = 16; h < n; h *= 2)
        for (int i = 0; i < n; i += 2 * h)
            for (int j = i; j < i + h; j += 16) {
                vec a = v_load(x + j), b = v_load(x + j + h);
                v_store(x + j, v_add(a, b));
                v_store(x + j + h, v_sub(a, b));
            }
    for (int i = 0; i < n; i += 16)
        v_store(x + i, v_mul(v_load(x + i), by));
}

static bool kv_quantize(const float *x, int n, int bits, float clip, uint8_t *q, uint16_t *scale, uint8_t *zero)
{
    vec lo = v_set(0.0f), hi = v_set(0.0f);
    if (abs_max_bits(x, n) >= 0x7F800000) {
        memset(q, 0, (size_t)n);
        *scale = 0;
        *zero = 0;
        return false;
    }
    FOR_VEC(i, m, n)
    {
        vec a = load_some(x + i, m); /* lanes past the end hold 0, which the range includes anyway */
        hi = v_max(a, hi);
        lo = v_min(a, lo);
    }
    float top = (float)((1 << bits) - 1);
    float low = -v_fold_max(v_sub(v_set(0.0f), lo)) * clip, high = v_fold_max(hi) * clip, range = high - low;
    float wide = (range > 1e-5f ? range : 1e-5f) / top;
    *scale = atom_float_f16(wide < 65504.0f ? wide : 65504.0f);
    float s = atom_f16_float(*scale);
    float at = -low / s; /* beyond top when the scale was cut short */
    int32_t z = (int32_t)lrintf(at < top ? at : top);
    *zero = (uint8_t)z;
    vec by = v_set(s);
    FOR_VEC(i, m, n)
    {
        vec t = v_min(v_max(v_div(load_some(x + i, m), by), v_set(-1024.0f)), v_set(1024.0f));
        ivec v = i_add(v_round(t), i_set(z));
        v = i_min(i_max(v, i_set(0)), i_set((int32_t)top));
        uint8_t bytes[16];
        i_store_8(bytes, v);
        memcpy(q + i, bytes, (size_t)m);
    }
    return true;
}

/* Scales and -scale*zero of a page's sixteen positions: v = fma(q, s, -s*z) equals s*(q-z), both being exact. */
struct kv_scales {
    vec s, minus_sz;
};

VEC_FN struct kv_scales page_scales(const struct atom_kv_shape *kv, const uint8_t *page)
{
    const uint8_t *tail = page + kv->half_bytes - 64;
    uint16_t f16[16];
    memcpy(f16, tail, sizeof f16);
    vec s = v_f16(f16);
    return (struct kv_scales){s, v_sub(v_set(0.0f), v_mul(s, v_int(i_u8(tail + 32))))};
}

/* Channel d and d + half of sixteen keys. */
VEC_FN void key_pair(const struct atom_kv_shape *kv, const uint8_t *page, const struct kv_scales *ks, int d, vec *a,
                     vec *b)
{
    int half = kv->head_dim / 2;
    const float *f = (const float *)(const void *)page;
    const uint16_t *h = (const uint16_t *)(const void *)page;
    ivec both;
    switch (kv->kind) {
    case ATOM_KV_F32:
        *a = v_load(f + d * 16), *b = v_load(f + (d + half) * 16);
        break;
    case ATOM_KV_F16:
        *a = v_f16(h + d * 16), *b = v_f16(h + (d + half) * 16);
        break;
    case ATOM_KV_BYTE:
        *a = v_fma(v_int(i_u8(page + d * 16)), ks->s, ks->minus_sz);
        *b = v_fma(v_int(i_u8(page + (d + half) * 16)), ks->s, ks->minus_sz);
        break;
    case ATOM_KV_NIBBLE:
        both = i_u8(page + d * 16);
        *a = v_fma(v_int(i_and(both, i_set(15))), ks->s, ks->minus_sz);
        *b = v_fma(v_int(i_shr(both, 4)), ks->s, ks->minus_sz);
        break;
    }
}

static void kv_keys(const struct atom_kv_shape *kv, const uint8_t *page, const struct atom_rope_page *rp, float *out)
{
    struct kv_scales ks = {v_set(0.0f), v_set(0.0f)};
    int half = kv->head_dim / 2;
    if (kv->kind == ATOM_KV_BYTE || kv->kind == ATOM_KV_NIBBLE)
        ks = page_scales(kv, page);
    for (int d = 0; d < half; d++) {
        vec a = v_set(0.0f), b = a;
        key_pair(kv, page, &ks, d, &a, &b);
        if (rp) {
            vec c = v_load(rp->cos + d * 16), s = v_load(rp->sin + d * 16), t = a;
            a = v_sub(v_mul(a, c), v_mul(b, s));
            b = v_fma(b, c, v_mul(t, s));
        }
        v_store(out + d * ATOM_PANEL, a);
        v_store(out + (d + half) * ATOM_PANEL, b);
    }
}

/* Sixteen stored values from `at` on as floats; NIBBLE: of the low or the high half. */
VEC_FN vec stored_values(const enum atom_kv_kind kind, const void *at, const bool high, vec s, vec minus_sz)
{
    if (kind == ATOM_KV_F32)
        return v_load(at);
    if (kind == ATOM_KV_F16)
        return v_f16(at);
    ivec q = i_u8(at);
    if (kind == ATOM_KV_NIBBLE)
        q = high ? i_shr(q, 4) : i_and(q, i_set(15));
    return v_fma(v_int(q), s, minus_sz);
}

static size_t value_bytes(enum atom_kv_kind kind) { return kind == ATOM_KV_F32 ? 4 : kind == ATOM_KV_F16 ? 2 : 1; }

struct values_out {
    float *at; /* of this position */
    size_t panel_stride;
};

VEC_FN float *value_place(const struct values_out *o, int channel)
{
    return o->at + (size_t)(channel / 32) * o->panel_stride + channel % 32;
}

/* One position whose rows are whole vectors: kind constant. */
VEC_FN void whole_row(const enum atom_kv_kind kind, const uint8_t *from, int row, vec s, vec minus_sz,
                      const struct values_out *o)
{
    for (int d = 0; d < row; d += 16, from += 16 * (kind == ATOM_KV_F32 ? 4 : kind == ATOM_KV_F16 ? 2 : 1)) {
        v_store(value_place(o, d), stored_values(kind, from, false, s, minus_sz));
        if (kind == ATOM_KV_NIBBLE)
            v_store(value_place(o, d + row), stored_values(kind, from, true, s, minus_sz));
    }
}

/* Any head size: elements one after the other, through a line of sixteen. */
static void ragged_row(enum atom_kv_kind kind, const uint8_t *from, int row, vec s, vec minus_sz,
                       const struct values_out *o)
{
    size_t size = value_bytes(kind);
    for (int high = 0; high <= (kind == ATOM_KV_NIBBLE); high++)
        FOR_VEC(d, m, row)
        {
            uint8_t some[64] = {0};
            float line[16];
            memcpy(some, from + (size_t)d * size, (size_t)m * size);
            v_store(line, stored_values(kind, some, high, s, minus_sz));
            for (int l = 0; l < m; l++)
                *value_place(o, high * row + d + l) = line[l];
        }
}

static void value_row(enum atom_kv_kind kind, const uint8_t *from, int row, vec s, vec minus_sz,
                      const struct values_out *o)
{
    if (row % 16)
        ragged_row(kind, from, row, s, minus_sz, o);
    else if (kind == ATOM_KV_NIBBLE)
        whole_row(ATOM_KV_NIBBLE, from, row, s, minus_sz, o);
    else if (kind == ATOM_KV_BYTE)
        whole_row(ATOM_KV_BYTE, from, row, s, minus_sz, o);
    else if (kind == ATOM_KV_F16)
        whole_row(ATOM_KV_F16, from, row, s, minus_sz, o);
    else
        whole_row(ATOM_KV_F32, from, row, s, minus_sz, o);
}

static void kv_values(const struct atom_kv_shape *kv, const uint8_t *page, int n_pos, size_t panel_stride, float *out)
{
    int hd = kv->head_dim, row = kv->kind == ATOM_KV_NIBBLE ? hd / 2 : hd, wide = (hd + 31) / 32 * 32;
    size_t row_bytes = (size_t)row * value_bytes(kv->kind);
    float s[16] = {0}, sz[16] = {0};
    if (kv->kind == ATOM_KV_BYTE || kv->kind == ATOM_KV_NIBBLE) {
        struct kv_scales ks = page_scales(kv, page);
        v_store(s, ks.s);
        v_store(sz, ks.minus_sz);
    }
    for (int p = 0; p < 16; p++) {
        const struct values_out o = {out + p * ATOM_PANEL, panel_stride};
        for (int d = p < n_pos ? hd : 0; d < wide; d++)
            *value_place(&o, d) = 0.0f;
        if (p < n_pos)
            value_row(kv->kind, page + (size_t)p * row_bytes, row, v_set(s[p]), v_set(sz[p]), &o);
    }
}

static void softmax(float *s, int n, int n_padded, float *max, float *sum)
{
    if (abs_max_bits(s, n) >= 0x7F800000) {
        memset(s, 0, (size_t)n_padded * sizeof *s);
        *max = 0.0f;
        *sum = NAN;
        return;
    }
    vec top = v_set(s[0]), total = v_set(0.0f);
    int whole = n / 16 * 16, rest = n - whole;
    for (int i = 0; i < whole; i += 16)
        top = v_max(top, v_load(s + i));
    float m = v_fold_max(top);
    for (int i = whole; i < n; i++)
        m = m > s[i] ? m : s[i];
    vec vm = v_set(m);
    for (int i = 0; i < whole; i += 16) {
        vec e = exp_vec(v_sub(v_load(s + i), vm));
        v_store(s + i, e);
        total = v_add(total, e);
    }
    if (rest) {
        v_store_n(s + whole, exp_vec(v_sub(v_load_n(s + whole, rest), vm)), rest);
        total = v_add(total, v_load_n(s + whole, rest));
    }
    for (int i = n; i < n_padded; i++)
        s[i] = 0.0f;
    *max = m;
    *sum = v_fold_add(total);
}

/* e^a of one number, by the same arithmetic. */
VEC_FN float exp_one(float a)
{
    float e[16];
    v_store(e, exp_vec(v_set(a)));
    return e[0];
}

static void merge(struct atom_partial *sum, const struct atom_partial *part, int n)
{
    if (part->total == 0.0f)
        return;
    if (sum->total == 0.0f) {
        memcpy(sum->o, part->o, (size_t)n * sizeof *sum->o);
        sum->max = part->max;
        sum->total = part->total;
        return;
    }
    float m = sum->max > part->max ? sum->max : part->max;
    float a = exp_one(sum->max - m), b = exp_one(part->max - m);
    vec va = v_set(a), vb = v_set(b);
    for (int i = 0; i < n; i += 16)
        v_store(sum->o + i, v_add(v_mul(v_load(sum->o + i), va), v_mul(v_load(part->o + i), vb)));
    sum->max = m;
    sum->total = sum->total * a + part->total * b;
}

static float logsumexp(const float *x, int n)
{
    float m = x[0];
    vec top = v_set(m), total = v_set(0.0f);
    int whole = n / 16 * 16;
    for (int i = 0; i < whole; i += 16)
        top = v_max(top, v_load(x + i));
    m = v_fold_max(top);
    for (int i = whole; i < n; i++)
        m = m > x[i] ? m : x[i];
    vec vm = v_set(m);
    for (int i = 0; i < whole; i += 16)
        total = v_add(total, exp_vec(v_sub(v_load(x + i), vm)));
    if (n > whole) {
        float e[16] = {0};
        v_store_n(e, exp_vec(v_sub(v_load_n(x + whole, n - whole), vm)), n - whole);
        total = v_add(total, v_load(e));
    }
    return m + logf(v_fold_add(total));
}

static void fill_rows(struct atom_kernels *k)
{
    k->sum_squares = sum_squares;
    k->norm = norm;
    k->quantize = quantize;
    k->silu_mul = silu_mul;
    k->rope = rope;
    k->hadamard = hadamard;
    k->kv_quantize = kv_quantize;
    k->kv_keys = kv_keys;
    k->kv_values = kv_values;
    k->softmax = softmax;
    k->merge = merge;
    k->logsumexp = logsumexp;
}
