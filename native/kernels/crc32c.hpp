#pragma once

#include <cstddef>
#include <cstdint>

namespace cube {

// CRC32C (Castagnoli) of `data`, continuing from `value` (0 at the start).
uint32_t crc32c(uint32_t value, const void* data, size_t size);

// The same without the CPU's instruction; what crc32c falls back to.
uint32_t crc32c_portable(uint32_t value, const void* data, size_t size);

}  // namespace cube
