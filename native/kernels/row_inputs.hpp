#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/value_kind.hpp"

namespace cube {

inline bool is_bit_set(const uint8_t* bits, uint64_t at) { return bits[at / 8] >> (at % 8) & 1; }

inline uint64_t count_bits(std::span<const uint8_t> bits) {
    return std::accumulate(bits.begin(), bits.end(), uint64_t{0}, [](uint64_t sum, uint8_t byte) {
        return sum + static_cast<unsigned>(std::popcount(byte));
    });
}

// Rows of one origin, one after the other.
struct RowRun {
    size_t first = 0;  // input number of its first row
    const uint8_t* values = nullptr;
    size_t stride = 0;                 // from value to value
    const uint8_t* deleted = nullptr;  // one bit a row; nullptr: none of them is
    bool all_deleted = false;          // then there are no values
    // Where values are of variable width: the offsets in `values` of row i and the one after it, or
    // the heap in which the values are places.
    const int64_t* offsets = nullptr;
    const uint8_t* heap = nullptr;

    bool is_deleted(size_t row) const {
        return all_deleted || (deleted != nullptr && is_bit_set(deleted, row));
    }
    // The value of a row that is not deleted.
    std::span<const uint8_t> value_of(size_t row, size_t width) const {
        if (offsets != nullptr)
            return {values + offsets[row], static_cast<size_t>(offsets[row + 1] - offsets[row])};
        const uint8_t* stored = values + row * stride;
        if (heap == nullptr) return {stored, width};
        const ValuePlace place = ValuePlace::load(stored);
        return {heap + place.offset, place.bytes};
    }
};

// What a table is made of: input i is the row of keys[i], and of equal keys the last one counts.
struct RowInputs {
    std::span<const uint64_t> keys;
    std::vector<RowRun> runs;  // ascending, the first from input 0 on
    size_t width = 0;          // of every value, unless they have various ones

    bool is_deleted(size_t input) const {
        const RowRun& run = run_of(input);
        return run.is_deleted(input - run.first);
    }
    // Empty when the key is deleted, and then only.
    std::span<const uint8_t> value_of(size_t input) const {
        const RowRun& run = run_of(input);
        const size_t row = input - run.first;
        return run.is_deleted(row) ? std::span<const uint8_t>() : run.value_of(row, width);
    }
    // Asks for what `value_of` reads.
    void ask(size_t input) const {
        const RowRun& run = run_of(input);
        const size_t row = input - run.first;
        __builtin_prefetch(&keys[input]);
        if (run.offsets != nullptr) {
            __builtin_prefetch(run.offsets + row);
        } else if (run.heap != nullptr) {
            __builtin_prefetch(run.values + row * run.stride);
        }
    }
    bool has_deletions() const {
        for (const RowRun& run : runs)
            if (run.all_deleted || run.deleted != nullptr) return true;
        return false;
    }

  private:
    const RowRun& run_of(size_t input) const {
        size_t at = runs.size() - 1;
        while (runs[at].first > input) --at;
        return runs[at];
    }
};

}  // namespace cube
