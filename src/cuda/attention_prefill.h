#ifndef ATOM_CUDA_ATTENTION_PREFILL_H
#define ATOM_CUDA_ATTENTION_PREFILL_H
#include "cuda/ops.h"
#endif
