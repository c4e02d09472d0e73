#pragma once

#include <cstdint>

namespace cube {

inline uint32_t load_u32be(const uint8_t* at) {
    return static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 |
           static_cast<uint32_t>(at[2]) << 8 | at[3];
}

inline uint64_t load_u64be(const uint8_t* at) {
    return static_cast<uint64_t>(load_u32be(at)) << 32 | load_u32be(at + 4);
}

inline uint64_t load_u64le(const uint8_t* at) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | at[i];
    return value;
}

inline uint8_t* store_u32be(uint8_t* target, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) *target++ = static_cast<uint8_t>(value >> shift);
    return target;
}

inline uint8_t* store_u64le(uint8_t* target, uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) *target++ = static_cast<uint8_t>(value >> shift);
    return target;
}

}  // namespace cube
