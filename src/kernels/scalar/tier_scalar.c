/* SPDX-License-Identifier: Apache-2.0 */
/* The reference tier: plain C, any x86-64 or other machine. */
#include "vec_scalar.h"

#include "kernels/rows.h"
#include "kernels/panels.h"

/* q of row r (0..31) and padded channel c of a run, from the panel's bytes. */
static int weight_at(const struct atom_packed *w, int panel, const struct atom_run *run, int r, int c)
{
    const uint8_t *from = w->data + (size_t)panel * w->panel_bytes + run_at(w, run);
    if (!is_nibbles(w, run))
        return from[(c / 4) * 128 + r * 4 + c % 4] - 128;
    int both = from[(c / 8) * 128 + r * 4 + c % 4];
    return (c % 8 < 4 ? both & 15 : both >> 4) - 8;
}

static void linear_int(const struct atom_linear_job *job)
{
    const struct atom_packed *w = job->w;
    const struct atom_acts *a = job->a;
    const struct atom_layout *lay = a->lay;
    for (int t = job->tok0; t < job->tok1; t++)
        for (int r = 0; r < ATOM_PANEL; r++) {
            const int8_t *q = a->q + (size_t)t * (size_t)lay->row_bytes;
            const uint16_t *scales = w->scales + (size_t)job->panel * (size_t)lay->n_scales * ATOM_PANEL + r;
            float y = 0.0f;
            for (int i = 0; i < lay->n_runs; i++) {
                const struct atom_run *run = &lay->runs[i];
                int32_t acc = 0;
                for (int c = 0; c < run->len; c++)
                    acc += q[run->offset + c] * weight_at(w, job->panel, run, r, c);
                float s_w = atom_f16_float(scales[run->scale * ATOM_PANEL]);
                float s_a = a->scales[(size_t)t * (size_t)lay->n_scales + (size_t)run->scale];
                y = fmaf((float)acc, s_a * s_w, y);
            }
            float *to = job->y + (size_t)(t - job->tok0) * job->ld + r;
            *to = job->add ? *to + y : y;
        }
}

void atom_kernels_scalar(struct atom_kernels *k)
{
    k->name = "scalar";
    k->linear_int = linear_int;
    fill_rows(k);
    fill_panels(k);
}
