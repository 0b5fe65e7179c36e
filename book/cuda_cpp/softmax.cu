// Softmax of every row of x, (rows, length): one block a row.

constexpr int THREADS = 128;          // of a block: four warps
constexpr unsigned ALL = 0xffffffff;  // the mask that names all 32 lanes

// The largest `value` of the block, for every thread of it.
__device__ float block_max(float value) {
    __shared__ float parts[THREADS / 32];
    for (int apart = 16; apart > 0; apart /= 2)
        value = fmaxf(value, __shfl_xor_sync(ALL, value, apart));
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = value;
    __syncthreads();
    for (int warp = 0; warp < THREADS / 32; warp++)
        value = fmaxf(value, parts[warp]);
    return value;
}

// The sum of `value` over the block, for every thread of it.
__device__ float block_sum(float value) {
    __shared__ float parts[THREADS / 32];
    for (int apart = 16; apart > 0; apart /= 2)
        value += __shfl_xor_sync(ALL, value, apart);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
    for (int warp = 0; warp < THREADS / 32; warp++)
        sum += parts[warp];
    return sum;
}

__global__ void softmax(const float *x, float *y, int length) {
    x += (size_t)blockIdx.x * length;
    y += (size_t)blockIdx.x * length;

    float top = -INFINITY;
    for (int i = threadIdx.x; i < length; i += THREADS)
        top = fmaxf(top, x[i]);
    top = block_max(top);

    float sum = 0;
    for (int i = threadIdx.x; i < length; i += THREADS)
        sum += expf(x[i] - top);
    sum = block_sum(sum);

    for (int i = threadIdx.x; i < length; i += THREADS)
        y[i] = expf(x[i] - top) / sum;
}

extern "C" void softmax_rows(const float *x, float *y, int rows, int length) {
    softmax<<<rows, THREADS>>>(x, y, length);
}
