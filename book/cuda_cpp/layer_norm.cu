// Layer norm of every row of x, (rows, length): one block a row.

constexpr int THREADS = 128;          // of a block: four warps
constexpr unsigned ALL = 0xffffffff;  // the mask that names all 32 lanes

// The sum of `value` over the block, for every thread of it.
__device__ float block_sum(float value) {
    __shared__ float parts[THREADS / 32];
    for (int apart = 16; apart > 0; apart /= 2)
        value += __shfl_xor_sync(ALL, value, apart);
    __syncthreads();  // of an earlier sum, somebody may still be reading
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
    for (int warp = 0; warp < THREADS / 32; warp++)
        sum += parts[warp];
    return sum;
}

__global__ void layer_norm(const float *x, const float *weight,
                           const float *bias, float *y, int length,
                           float eps) {
    x += (size_t)blockIdx.x * length;
    y += (size_t)blockIdx.x * length;

    float sum = 0;
    for (int i = threadIdx.x; i < length; i += THREADS)
        sum += x[i];
    float mean = block_sum(sum) / length;

    // Two passes, corrected: what is left of the mean is taken out as well.
    float rest = 0, squares = 0;
    for (int i = threadIdx.x; i < length; i += THREADS) {
        float deviation = x[i] - mean;
        rest += deviation;
        squares += deviation * deviation;
    }
    rest = block_sum(rest) / length;
    float variance = block_sum(squares) / length - rest * rest;
    float rstd = rsqrtf(variance + eps);

    for (int i = threadIdx.x; i < length; i += THREADS)
        y[i] = (x[i] - mean - rest) * rstd * weight[i] + bias[i];
}

extern "C" void layer_norm_rows(const float *x, const float *weight,
                                const float *bias, float *y, int rows,
                                int length, float eps) {
    layer_norm<<<rows, THREADS>>>(x, weight, bias, y, length, eps);
}
