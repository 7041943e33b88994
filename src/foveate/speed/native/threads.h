// Work shared out to PyTorch's own threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

// The entry of GNU's OpenMP library that compilers call: PyTorch's own threads do the work, whichever compiler this is.
extern "C" void GOMP_parallel(void (*function)(void*), void* data, unsigned threads, unsigned flags);

namespace {

constexpr int ROWS_OF_BAND = 6;  // or more, where threads need not wait: at a band's edges rows are computed twice

// `task(0)` to `task(count - 1)`, each by the thread that is free.
template <typename Task>
void share(int count, int threads, const Task& task) {
    struct Work {
        std::atomic<int> next;
        int count;
        const Task* task;
    } work{{0}, count, &task};
    const auto run = [](void* data) {
        Work& own = *static_cast<Work*>(data);
        for (int index = own.next++; index < own.count; index = own.next++) (*own.task)(index);
    };
    GOMP_parallel(run, &work, threads, 0);
}

// In how many parts rows are shared out: about four for each thread.
inline int row_parts(std::int64_t rows, int threads) { return static_cast<int>(std::min<std::int64_t>(rows, 4 * threads)); }

// `task(part, first, last)` for every part of the rows.
template <typename Task>
void share_rows(std::int64_t rows, int threads, const Task& task) {
    const int parts = row_parts(rows, threads);
    share(parts, threads, [&](int part) { task(part, rows * part / parts, rows * (part + 1) / parts); });
}

// In how many bands of rows each picture's map is shared out: few pictures in two for each thread, or at least in one.
inline int bands_of(int pictures, int height, int threads) {
    const int wanted = std::min((2 * threads + pictures - 1) / pictures, height / ROWS_OF_BAND);
    const int needed = std::min((threads + pictures - 1) / pictures, height / 2);
    return std::max({wanted, needed, 1});
}

}  // namespace
