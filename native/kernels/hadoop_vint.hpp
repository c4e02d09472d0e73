#pragma once

#include <cstddef>
#include <cstdint>

namespace cube {

// Hadoop's variable-length integer: one byte from -112 on is the value itself; below it counts the
// big-endian bytes that follow, and below -120 they are the complement.
inline constexpr size_t kHadoopVintBytesMax = 9;

// Bytes of the integer that begins with `first`.
inline size_t hadoop_vint_bytes(uint8_t first) {
    const int8_t tag = static_cast<int8_t>(first);
    if (tag >= -112) return 1;
    return 1 + static_cast<size_t>(tag < -120 ? -120 - tag : -112 - tag);
}

inline int64_t load_hadoop_vint(const uint8_t* at) {
    const int8_t tag = static_cast<int8_t>(*at);
    const size_t size = hadoop_vint_bytes(*at);
    if (size == 1) return tag;
    uint64_t value = 0;
    for (size_t i = 1; i < size; ++i) value = value << 8 | at[i];
    return static_cast<int64_t>(tag < -120 ? ~value : value);
}

// Returns the end of the integer at `at`, or nullptr when it is cut off.
inline const uint8_t* read_hadoop_vint(const uint8_t* at, const uint8_t* end, int64_t& value) {
    if (at == end) return nullptr;
    const size_t size = hadoop_vint_bytes(*at);
    if (size > static_cast<size_t>(end - at)) return nullptr;
    value = load_hadoop_vint(at);
    return at + size;
}

}  // namespace cube
