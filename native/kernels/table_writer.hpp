#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/row_inputs.hpp"
#include "kernels/table_format.hpp"

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
    std::string base_version;  // of a delta; then also what it deletes, whatever `keys` say
    std::span<const uint64_t> deletions = {};
};

struct TableReport {
    uint64_t key_count = 0;
    uint64_t deletion_count = 0;
    uint64_t duplicate_count = 0;
    uint64_t file_bytes = 0;
    double overhead_bytes_per_key = 0;
    uint32_t crc32c = 0;
};

// Writes the table of one shard to `path`, by way of a temporary file beside it. Throws
// std::invalid_argument for input that no table can hold, OsError when writing fails.
TableReport write_table(const std::string& path, const TableInput& input);

// The same for rows of several origins; the counts and the index in `header` are filled in. A whole
// table leaves out what is deleted.
TableReport write_rows(const std::string& path, TableHeader header, const RowInputs& rows);

}  // namespace cube
