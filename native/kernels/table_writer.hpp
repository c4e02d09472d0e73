#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/value_kind.hpp"

namespace cube {

struct TableInput {
    std::span<const uint64_t> keys;
    // One row of value_bytes a key; with variable width, key i's is between offsets i and i + 1.
    const uint8_t* values = nullptr;
    size_t value_bytes = 0;
    std::string dict_name;
    std::string version;
    uint32_t shard = 0;
    uint32_t shard_num = 1;
    ValueKind value_kind = ValueKind::kBytes;
    std::span<const int64_t> offsets = {};  // one more than keys, when the width is variable

    std::span<const uint8_t> value_at(size_t i) const {
        return {values + offsets[i], static_cast<size_t>(offsets[i + 1] - offsets[i])};
    }
};

struct TableReport {
    uint64_t key_count = 0;
    uint64_t duplicate_count = 0;
    uint64_t file_bytes = 0;
    double overhead_bytes_per_key = 0;
    uint32_t crc32c = 0;
};

// Writes the table of one shard to `path`, by way of a temporary file beside it. Throws
// std::invalid_argument for input that no table can hold, OsError when writing fails.
TableReport write_table(const std::string& path, const TableInput& input);

}  // namespace cube
