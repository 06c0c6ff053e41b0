/* SPDX-License-Identifier: Apache-2.0 */
/* What a program built without nvcc has in place of src/bench/gpu. */
#include "bench/gpu_bench.h"

#include "bench/gpu_plan.h"
#include "cuda/cuda.h"

enum atom_status atom_bench_gpu(const struct atom_gpu_options *opt, struct atom_error *err)
{
    struct atom_gpu_plan plan;
    struct atom_cuda_device device;
    enum atom_status st = atom_gpu_plan_make(opt, &plan, err);
    return st ? st : atom_cuda_open(opt->device, &device, err);
}
