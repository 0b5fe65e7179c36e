// Runs the threads of a kernel one at a time, each as a fiber with a stack of its own, and reports where they break
// the rules of CUDA: the first report ends the launch.
//
// A thread runs until it waits, at a barrier or in a shuffle, or returns; then comes the next. Two accesses to the same
// memory, one of them a write, must have an order: the same thread; or a barrier of the block between them; or, within
// a warp, __syncwarp(). Where there is none, that is a race, whatever the values were this time. Blocks have no order.
#include "fibers.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <string>
#include <vector>

// The bounds of all static shared memory, by the linker; null where a kernel has none.
extern "C" {
extern char __start_fibers_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_fibers_shared[] __attribute__((weak, visibility("hidden")));
}

namespace fibers {
namespace {

const size_t STACK = 64 << 10, DYNAMIC = 48 << 10;
const int WARP = 32;
const long PATIENCE = 30'000'000;  // steps of a block: a loop without an end gets there in a second or so

enum State { ready, waits, returned };

struct Fiber {
    ucontext_t start;  // a new stack is entered by setcontext; after that two jumps are a hundred times faster
    jmp_buf here;
    bool started;
    State state;
    const char *call;  // where it waits; a mask of 0 is the barrier of the block
    int line;
    unsigned mask;
    uint64_t bits;  // given in a shuffle, then received
    int from;       // which lane's
    // Within a warp __syncwarp() gives an order: `step` counts a thread's own, seen[lane] is how many of that lane's
    // steps came before what this thread does now.
    int step, seen[WARP];
};

struct Access {
    int block = -1, thread = 0, epoch = 0, step = 0;
    unsigned pc = 0;
    bool atomic = false;
};

struct Cell {
    Access write, read, other_read;
};

struct Region {
    std::string name;
    char *begin;
    size_t bytes, item;
    std::vector<Cell> cells;
};

std::vector<Region> regions;
size_t arrays;  // so many of the regions are arrays in global memory; the shared ones follow
std::vector<Fiber> threads;
char *stacks;
jmp_buf scheduler;
int me, block, epoch;  // the thread that runs, its block, and how many barriers that block has passed
bool running;          // code of a kernel, and not of the host
bool watching;
void (*body)(void *);
void *body_argument;
long patience;
uint64_t seed;
std::string report;

unsigned below(unsigned n) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;  // xorshift
    return (seed >> 33) % n;
}

std::vector<int> order(int n) {
    std::vector<int> all(n);
    for (int i = 0; i < n; i++) all[i] = i;
    for (int i = n - 1; seed && i > 0; i--) std::swap(all[i], all[below(i + 1)]);
    return all;
}

// {12} stands for line 12, {@1f} for the line of the instruction at 0x1f: runner.py has the file.
__attribute__((format(printf, 1, 2))) void fail(const char *format, ...) {
    char text[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    report = text;
    if (running) _longjmp(scheduler, 1);
}

void hurry() {
    if (--patience < 0) fail("Thread %d of block %d does not come to an end: is there a loop without one?", me, block);
}

void pause() {
    hurry();
    if (!_setjmp(threads[me].here)) _longjmp(scheduler, 1);
}

void wait(const char *call, int line, unsigned mask) {
    Fiber &f = threads[me];
    f.state = waits, f.call = call, f.line = line, f.mask = mask;
    pause();
}

// ---- Memory ---------------------------------------------------------------------------------------------------------

bool ordered(const Access &before) {
    if (before.block < 0) return true;
    if (before.block != block) return false;
    if (before.thread == me || before.epoch < epoch) return true;
    return before.thread / WARP == me / WARP && before.step < threads[me].seen[before.thread % WARP];
}

std::string element(const Region &region, long offset) {
    if (&region - &regions[0] >= long(arrays)) return "shared memory";
    long index = (offset >= 0 ? offset : offset - long(region.item) + 1) / long(region.item);
    return region.name + "[" + std::to_string(index) + "]";
}

const char *verb(Kind kind) { return kind == reads ? "reads" : kind == writes ? "writes" : "updates"; }

void race(const Region &region, size_t index, Kind kind, const Access &now, const Access &before, bool written) {
    std::string what = element(region, index * region.item);
    const char *had = written ? "written" : "read";
    if (before.block == block)
        fail("Thread %d of block %d %s %s {@%x} that thread %d has %s {@%x}, and no barrier stands between them.", me,
             block, verb(kind), what.c_str(), now.pc, before.thread, had, before.pc);
    else
        fail("Block %d %s %s {@%x} that block %d has %s {@%x}, and blocks run in any order.", block, verb(kind),
             what.c_str(), now.pc, before.block, had, before.pc);
}

void touch(Region &region, size_t offset, size_t size, Kind kind, const Access &now) {
    if (!watching) return;
    for (size_t i = offset / region.item; i <= (offset + size - 1) / region.item; i++) {
        Cell &cell = region.cells[i];
        if (!ordered(cell.write) && !(now.atomic && cell.write.atomic))
            race(region, i, kind, now, cell.write, true);
        if (kind != writes && cell.write.block < 0 && &region >= &regions[arrays])
            fail("Thread %d of block %d %s shared memory {@%x} that no thread of the block has written yet.", me, block,
                 verb(kind), now.pc);
        if (kind != reads) {
            for (const Access &read : {cell.read, cell.other_read})
                if (!ordered(read) && !(now.atomic && read.atomic)) race(region, i, kind, now, read, false);
            cell.write = now;
        }
        if (kind != writes) (ordered(cell.read) ? cell.read : cell.other_read) = now;
    }
}

void outside(const char *at, size_t size, Kind kind, unsigned pc) {
    const Region *nearest = nullptr;
    long distance = 1 << 30;
    for (const Region &region : regions) {
        long gap = at < region.begin ? region.begin - at : at + size - (region.begin + region.bytes);
        if (gap < distance) nearest = &region, distance = gap;
    }
    if (!nearest)
        fail("Thread %d of block %d %s memory {@%x} that belongs to no array.", me, block, verb(kind), pc);
    else if (nearest - &regions[0] >= long(arrays))
        fail("Thread %d of block %d %s %ld bytes outside of shared memory {@%x}.", me, block, verb(kind), distance, pc);
    else
        fail("Thread %d of block %d %s %s {@%x}, and %s has %zu elements.", me, block, verb(kind),
             element(*nearest, at - nearest->begin).c_str(), pc, nearest->name.c_str(), nearest->bytes / nearest->item);
}

bool within(const char *at, size_t size, const void *begin, size_t bytes) {
    return at >= begin && at + size <= static_cast<const char *>(begin) + bytes;
}

void share(char *begin, size_t bytes) {
    if (!bytes) return;
    memset(begin, 0xff, bytes);  // NaN
    regions.push_back({"", begin, bytes, 1, std::vector<Cell>(bytes)});
}

// ---- Warps and blocks -----------------------------------------------------------------------------------------------

bool same(const Fiber &one, const Fiber &other) {
    bool anywhere = !strcmp(one.call, "__syncwarp");
    return other.state == waits && other.mask == one.mask && !strcmp(other.call, one.call) &&
           (anywhere || other.line == one.line);
}

// The first thread that the mask of `thread` names and that is not where `thread` waits, or -1.
int missing(int thread) {
    const Fiber &f = threads[thread];
    int first = thread / WARP * WARP;
    for (int lane = 0; lane < WARP; lane++)
        if (f.mask >> lane & 1 && (first + lane >= int(threads.size()) || !same(f, threads[first + lane])))
            return first + lane;
    return -1;
}

void exchange_now(int thread) {
    Fiber *warp = &threads[thread / WARP * WARP];
    unsigned mask = threads[thread].mask;
    bool is_barrier = !strcmp(threads[thread].call, "__syncwarp");
    uint64_t given[WARP];
    int seen[WARP] = {};
    for (int lane = 0; lane < WARP; lane++) {
        if (!(mask >> lane & 1)) continue;
        given[lane] = warp[lane].bits;
        for (int other = 0; other < WARP; other++)
            seen[other] = warp[lane].seen[other] > seen[other] ? warp[lane].seen[other] : seen[other];
    }
    for (int lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1) seen[lane] = warp[lane].step + 1;
    for (int lane = 0; lane < WARP; lane++) {
        if (!(mask >> lane & 1)) continue;
        warp[lane].bits = given[warp[lane].from];
        warp[lane].state = ready;
        if (!is_barrier) continue;  // a shuffle says nothing about memory
        warp[lane].step++;
        memcpy(warp[lane].seen, seen, sizeof seen);
    }
}

std::string whereabouts(int thread) {
    if (thread >= int(threads.size())) return "does not exist";
    const Fiber &f = threads[thread];
    if (f.state == returned) return "has returned";
    char text[128];
    if (f.mask)
        snprintf(text, sizeof text, "waits in %s {%d} with mask 0x%08x", f.call, f.line, f.mask);
    else
        snprintf(text, sizeof text, "waits at %s() {%d}", f.call, f.line);
    return text;
}

// Nobody can go on. The sentence says who waits for whom.
void explain() {
    for (int t = 0; t < int(threads.size()); t++) {
        const Fiber &f = threads[t];
        if (f.state != waits || !f.mask) continue;
        int other = missing(t);
        fail("Thread %d of block %d waits in %s {%d} with mask 0x%08x, which names lane %d too; but thread %d %s.", t,
             block, f.call, f.line, f.mask, other % WARP, other, whereabouts(other).c_str());
        return;
    }
    int waiting = -1, elsewhere = -1, here = 0;
    for (int t = 0; t < int(threads.size()); t++) {
        if (waiting < 0 && threads[t].state == waits) waiting = t;
        if (waiting >= 0 && same(threads[waiting], threads[t])) here++;
    }
    for (int t = int(threads.size()) - 1; t >= 0; t--)
        if (!same(threads[waiting], threads[t])) elsewhere = t;
    fail("Of the %zu threads of block %d only %d have reached %s() {%d}; thread %d %s.", threads.size(), block, here,
         threads[waiting].call, threads[waiting].line, elsewhere, whereabouts(elsewhere).c_str());
}

// One more barrier passed, or shuffles done: whether anybody can go on.
bool release() {
    bool any = false, all = true;
    for (int t = 0; t < int(threads.size()); t++) {
        if (threads[t].state == waits && threads[t].mask && missing(t) < 0) exchange_now(t), any = true;
        all = all && threads[t].state == waits && !threads[t].mask && threads[t].line == threads[0].line;
    }
    if (!all) return any;
    epoch++;
    for (Fiber &f : threads) f.state = ready;
    return true;
}

void entry() {
    for (;;) {  // in one block after the other
        body(body_argument);
        threads[me].state = returned;
        pause();
    }
}

void resume(int thread) {
    me = thread;
    unsigned x = place.threads.x, y = place.threads.y;
    place.thread = dim3(thread % x, thread / x % y, thread / x / y);
    Fiber &f = threads[thread];
    if (!_setjmp(scheduler)) {
        running = true;
        if (f.started) _longjmp(f.here, 1);
        f.started = true;
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = stacks + thread * STACK;
        f.start.uc_stack.ss_size = STACK;
        makecontext(&f.start, entry, 0);
        setcontext(&f.start);
    }
    running = false;
}

void run_block() {
    for (Fiber &f : threads) {
        f.state = ready, f.step = 0;
        memset(f.seen, 0, sizeof f.seen);
    }
    for (;;) {
        size_t done = 0;
        for (int t : order(threads.size())) {
            if (threads[t].state == ready) resume(t);
            if (!report.empty()) return;
            done += threads[t].state == returned;
        }
        if (done == threads.size()) return;
        if (!release()) return explain();
    }
}

}  // namespace

Place place;
alignas(16) char dynamic_memory[DYNAMIC];

void watch(const void *address, size_t size, Kind kind, void *pc) {
    auto at = static_cast<const char *>(address);
    if (!running || within(at, size, stacks + me * STACK, STACK) || within(at, size, &place, sizeof place)) return;
    static Dl_info here;
    if (!here.dli_fbase) dladdr(__builtin_return_address(0), &here);
    unsigned offset = static_cast<char *>(pc) - 1 - static_cast<char *>(here.dli_fbase);
    for (Region &region : regions)
        if (within(at, size, region.begin, region.bytes))
            return touch(region, at - region.begin, size, kind,
                         {block, me, epoch, threads[me].step, offset, kind == updates});
    outside(at, size, kind, offset);
}

void barrier(int line) { wait("__syncthreads", line, 0); }

unsigned long long exchange(const char *call, int line, unsigned mask, Source source, unsigned long long bits, int lane,
                            int width) {
    int mine = me % WARP;
    if (!(mask >> mine & 1))
        fail("Thread %d of block %d calls %s {%d} with mask 0x%08x, which does not name its own lane %d.", me, block,
             call, line, mask, mine);
    if (width < 1 || width > WARP || width & (width - 1))
        fail("Thread %d of block %d calls %s {%d} with width %d; it must be a power of two up to 32.", me, block, call,
             line, width);
    int first = mine / width * width, from = mine;
    if (source == from_lane) from = first + (lane & (width - 1));
    if (source == from_above) from = mine + lane;
    if (source == from_below) from = mine - lane;
    if (source == from_xor) from = mine ^ lane;
    if (from >= first + width || (from < first && source != from_xor) || from < 0) from = mine;  // as CUDA has it
    if (!(mask >> from & 1))
        fail("Thread %d of block %d asks in %s {%d} for the value of lane %d, which the mask 0x%08x does not name.", me,
             block, call, line, from, mask);
    threads[me].bits = bits;
    threads[me].from = from;
    wait(call, line, mask);
    return threads[me].bits;
}

void run(dim3 blocks, dim3 dims, size_t dynamic_bytes, void (*thread)(void *), void *what) {
    if (!report.empty()) return;
    size_t count = size_t(dims.x) * dims.y * dims.z, grid = size_t(blocks.x) * blocks.y * blocks.z;
    if (count < 1 || count > 1024) return fail("A block has 1 to 1024 threads, and not %zu.", count);
    if (grid < 1 || grid > 0x7fffffff) return fail("A launch has at least one block, and not %zu.", grid);
    size_t fixed = __stop_fibers_shared - __start_fibers_shared;
    if (fixed + dynamic_bytes > DYNAMIC)
        return fail("A block has 48 KiB of shared memory, and not %zu bytes.", fixed + dynamic_bytes);
    threads.assign(count, Fiber());
    stacks = static_cast<char *>(malloc(count * STACK));
    body = thread, body_argument = what;
    place.threads = dims, place.blocks = blocks;
    for (Region &array : regions) array.cells.assign(array.bytes / array.item, Cell());
    for (int b : order(grid)) {
        if (!report.empty()) break;
        block = b, epoch = 0, patience = PATIENCE;
        place.block = dim3(b % blocks.x, b / blocks.x % blocks.y, b / blocks.x / blocks.y);
        regions.resize(arrays);
        share(__start_fibers_shared, fixed);
        share(dynamic_memory, dynamic_bytes);
        run_block();
    }
    regions.resize(arrays);
    free(stacks);
}

}  // namespace fibers

// ---- What runner.py calls -------------------------------------------------------------------------------------------

extern "C" void fibers_begin(uint64_t seed, int watching) {
    fibers::seed = seed * 0x9e3779b97f4a7c15;
    fibers::watching = watching;
    fibers::report.clear();
    fibers::regions.clear();
    fibers::arrays = 0;
}

extern "C" void fibers_array(const char *name, char *begin, size_t bytes, size_t item) {
    fibers::regions.push_back({name, begin, bytes, item, {}});
    fibers::arrays++;
}

extern "C" const char *fibers_report() { return fibers::report.c_str(); }

// ---- What the compiler calls before each access to memory -----------------------------------------------------------

#define WATCH(name, size, kind) \
    extern "C" void __tsan_##name(void *at) { fibers::watch(at, size, fibers::kind, __builtin_return_address(0)); }
WATCH(read1, 1, reads)
WATCH(read2, 2, reads)
WATCH(read4, 4, reads)
WATCH(read8, 8, reads)
WATCH(read16, 16, reads)
WATCH(write1, 1, writes)
WATCH(write2, 2, writes)
WATCH(write4, 4, writes)
WATCH(write8, 8, writes)
WATCH(write16, 16, writes)
extern "C" void __tsan_read_range(void *at, size_t size) {
    fibers::watch(at, size, fibers::reads, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void *at, size_t size) {
    fibers::watch(at, size, fibers::writes, __builtin_return_address(0));
}
// And at each stretch of code without a branch: an endless loop need not touch memory.
extern "C" void __sanitizer_cov_trace_pc() {
    if (fibers::running) fibers::hurry();
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit() {}
