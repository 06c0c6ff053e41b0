/* SPDX-License-Identifier: Apache-2.0 */
#include "model/rope.h"

#include "base/half.h"

#include <math.h>

/* Llama 3.1's rule: long wavelengths are slowed by the factor, short ones kept, those between blended. */
static double llama3(const struct atom_rope *r, double freq)
{
    double wavelength = 2 * 3.14159265358979323846 / freq, context = r->original_max_position;
    if (wavelength < context / r->high_freq_factor)
        return freq;
    if (wavelength > context / r->low_freq_factor)
        return freq / r->factor;
    double keep = (context / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - keep) * freq / r->factor + keep * freq;
}

void atom_rope_frequencies(const struct atom_rope *rope, int head_dim, double *inv_freq)
{
    for (int i = 0; i < head_dim / 2; i++) {
        double freq = pow(rope->theta, -2.0 * i / head_dim);
        if (rope->kind == ATOM_ROPE_LINEAR)
            freq /= rope->factor;
        else if (rope->kind == ATOM_ROPE_LLAMA3)
            freq = llama3(rope, freq);
        inv_freq[i] = rope->bf16_frequencies ? (double)atom_bf16_float(atom_float_bf16((float)freq)) : freq;
    }
}
