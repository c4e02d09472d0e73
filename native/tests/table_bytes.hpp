#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/crc32c.hpp"
#include "kernels/table_format.hpp"

namespace cube::tests {

inline void store_u32(std::vector<uint8_t>& bytes, size_t offset, uint32_t value) {
    std::memcpy(&bytes[offset], &value, 4);
}

inline uint64_t load_u64(const std::vector<uint8_t>& bytes, size_t offset) {
    uint64_t value;
    std::memcpy(&value, &bytes[offset], 8);
    return value;
}

// What an attacker does after changing bytes: makes every checksum right again.
inline void seal(std::vector<uint8_t>& bytes, size_t block_crcs_offset) {
    const size_t footer = bytes.size() - kTableFooterBytes;
    for (size_t begin = kTableHeaderBytes, crc_at = block_crcs_offset; begin < block_crcs_offset;
         begin += kTableBlockBytes, crc_at += 4)
        store_u32(bytes, crc_at,
                  stored_crc32c(&bytes[begin],
                                std::min<size_t>(kTableBlockBytes, block_crcs_offset - begin)));
    store_u32(bytes, 508, stored_crc32c(bytes.data(), 508));
    std::memcpy(&bytes[footer + 8], &bytes[508], 4);
    store_u32(bytes, footer + 12,
              stored_crc32c(&bytes[block_crcs_offset], footer - block_crcs_offset));
    store_u32(bytes, footer + 60, stored_crc32c(&bytes[footer], 60));
}

}  // namespace cube::tests
