#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/python_table.hpp"

// Values of various widths are uint8[b], end to end, with int64[n + 1] offsets: value i is between
// offsets i and i + 1.

// The offsets of `count` values. Throws std::invalid_argument unless they rise inside `values`.
inline std::span<const int64_t> cut_up(const InputArray<int64_t>& offsets,
                                       const InputArray<uint8_t>& values, size_t count) {
    const std::span<const int64_t> items = items_of(offsets, "offsets");
    expect_dimensions(values, 1, "values");
    if (items.size() != count + 1)
        throw std::invalid_argument("offsets has " + std::to_string(items.size()) + " items for " +
                                    std::to_string(count) + " values, which need one more");
    for (size_t i = 0; i < count; ++i)
        if (items[i] > items[i + 1])
            throw std::invalid_argument("offsets[" + std::to_string(i + 1) +
                                        "] is below the one before");
    if (items.front() < 0 || items.back() > static_cast<int64_t>(values.shape(0)))
        throw std::invalid_argument("offsets reach out of values");
    return items;
}

// Table.get_bytes and Table.pairs_bytes.
void bind_table_bytes(nb::class_<PythonTable>& table);
