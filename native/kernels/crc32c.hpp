#pragma once

#include <cstddef>
#include <cstdint>

namespace cube {

// CRC32C (Castagnoli) of `data`, continuing from `value` (0 at the start).
uint32_t crc32c(uint32_t value, const void* data, size_t size);

// A CRC in the form in which a file stores it. The CRC of bytes followed by their own plain CRC is
// a constant, so plain ones would make the checksum of the whole file the same for every content.
constexpr uint32_t masked_crc(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

// CRC32C of `data` from the start, masked.
inline uint32_t stored_crc32c(const void* data, size_t size) {
    return masked_crc(crc32c(0, data, size));
}

// crc32c without the CPU's instruction; what it falls back to.
uint32_t crc32c_portable(uint32_t value, const void* data, size_t size);

}  // namespace cube
