// CUDA's words for a C++17 compiler, so that a .cu file runs without a GPU: one fiber a thread. fibers.cpp runs the
// fibers and watches what they read and write.
//
// Three things are not C++. `runner.py` rewrites kernel<<<blocks, threads>>>(...) to fibers::with(kernel, blocks,
// threads)(...), and the declaration of dynamic shared memory; the compiler's -fsanitize=thread puts a call of
// fibers.cpp before each access to memory.
#pragma once
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS  // C's own math.h: that of C++ is most of the time of compiling
#include <math.h>
#undef _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#include <stddef.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("fibers_shared")))
#define FIBERS_UNWATCHED __attribute__((no_sanitize("thread")))

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace fibers {

struct Place {
    dim3 thread, block, threads, blocks;
};
extern Place place;  // of the thread that runs now
extern char dynamic_memory[];

enum Source { own, from_lane, from_above, from_below, from_xor };
enum Kind { reads, writes, updates };

void barrier(int line);
unsigned long long exchange(const char *call, int line, unsigned mask, Source source, unsigned long long bits, int lane,
                            int width);
void watch(const void *at, size_t size, Kind kind, void *pc);
void run(dim3 blocks, dim3 threads, size_t dynamic_bytes, void (*thread)(void *), void *what);

template <class T>
FIBERS_UNWATCHED T shuffle(const char *call, int line, unsigned mask, Source source, T value, int lane, int width) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle carries 4 or 8 bytes");
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(call, line, mask, source, bits, lane, width);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class... P>
auto with(void (*kernel)(P...), dim3 blocks, dim3 threads, size_t dynamic_bytes = 0) {
    return [=](P... arguments) FIBERS_UNWATCHED {
        auto thread = [&]() FIBERS_UNWATCHED { kernel(arguments...); };
        auto call = [](void *what) FIBERS_UNWATCHED { (*static_cast<decltype(thread) *>(what))(); };
        run(blocks, threads, dynamic_bytes, call, &thread);
    };
}

}  // namespace fibers

#define threadIdx fibers::place.thread
#define blockIdx fibers::place.block
#define blockDim fibers::place.threads
#define gridDim fibers::place.blocks
constexpr int warpSize = 32;

// A default argument that is the line of the call tells which barrier, or which shuffle, a thread has reached.
#define FIBERS_LINE int line = __builtin_LINE()

inline void __syncthreads(FIBERS_LINE) { fibers::barrier(line); }

inline void __syncwarp(unsigned mask = 0xffffffff, FIBERS_LINE) {
    fibers::exchange("__syncwarp", line, mask, fibers::own, 0, 0, 32);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, FIBERS_LINE) {
    return fibers::shuffle("__shfl_sync", line, mask, fibers::from_lane, value, lane, width);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned apart, int width = 32, FIBERS_LINE) {
    return fibers::shuffle("__shfl_down_sync", line, mask, fibers::from_above, value, apart, width);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned apart, int width = 32, FIBERS_LINE) {
    return fibers::shuffle("__shfl_up_sync", line, mask, fibers::from_below, value, apart, width);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int apart, int width = 32, FIBERS_LINE) {
    return fibers::shuffle("__shfl_xor_sync", line, mask, fibers::from_xor, value, apart, width);
}

template <class T>
FIBERS_UNWATCHED __attribute__((noinline)) T atomicAdd(T *at, T value) {
    fibers::watch(at, sizeof value, fibers::updates, __builtin_return_address(0));
    T before = *at;
    *at = before + value;
    return before;
}

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
#define __expf expf
#define __logf logf
#define __fdividef(x, y) ((x) / (y))
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
