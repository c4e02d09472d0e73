#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cube {

// How a row holds its value. Whatever the kind, a value is served as float32, or as it came.
//   bytes: the value itself.
//   fp16:  IEEE 754 halves, little-endian.
//   int8:  float32 min, float32 max, then a byte an element: min + byte * ((max - min) / 255).
//   variable: the place in the table's heap of a value of any width.
enum class ValueKind : uint32_t { kBytes = 0, kFp16 = 1, kInt8 = 2, kVariable = 3 };
inline constexpr uint32_t kValueKindMax = 3;

inline constexpr size_t kInt8HeadBytes = 8;

// Where a value of variable width is: what a row holds of it.
struct ValuePlace {
    static constexpr size_t kStoredBytes = 8;
    static constexpr int kLengthBits = 16;
    static constexpr uint64_t kOffsetMax = (uint64_t{1} << (64 - kLengthBits)) - 1;

    uint64_t offset = 0;
    uint32_t bytes = 0;

    static ValuePlace load(const uint8_t* stored) {
        uint64_t word;
        std::memcpy(&word, stored, sizeof word);
        return {word >> kLengthBits,
                static_cast<uint32_t>(word & ((uint64_t{1} << kLengthBits) - 1))};
    }
    void store(uint8_t* target) const {
        const uint64_t word = offset << kLengthBits | bytes;
        std::memcpy(target, &word, sizeof word);
    }
    uint64_t end() const { return offset + bytes; }
};

// Bytes of every value that is served from rows of `stored_bytes`; 0 when the kind has no such
// row, or values of various widths.
inline size_t served_bytes(ValueKind kind, size_t stored_bytes) {
    switch (kind) {
        case ValueKind::kBytes:
            return stored_bytes;
        case ValueKind::kFp16:
            return stored_bytes % 2 == 0 ? stored_bytes * 2 : 0;
        case ValueKind::kInt8:
            return stored_bytes > kInt8HeadBytes ? (stored_bytes - kInt8HeadBytes) * 4 : 0;
        case ValueKind::kVariable:
            return 0;
    }
    return 0;
}

}  // namespace cube
