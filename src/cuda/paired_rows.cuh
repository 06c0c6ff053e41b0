#pragma once
#include "cuda/row_ops.cuh"
