// Which values every lane of a warp has seen after each step of a tree.

__global__ void lanes(unsigned *seen, int across) {
    unsigned mine = 1u << threadIdx.x;  // bit i: the value of lane i
    for (int step = 0, apart = 16; apart > 0; step++, apart /= 2) {
        seen[step * 32 + threadIdx.x] = mine;
        if (across)
            mine |= __shfl_xor_sync(0xffffffff, mine, apart);
        else
            mine |= __shfl_down_sync(0xffffffff, mine, apart);
    }
    seen[5 * 32 + threadIdx.x] = mine;
}

extern "C" void seen_by_lanes(unsigned *seen, int across) {
    lanes<<<1, 32>>>(seen, across);
}
