#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cube {

inline constexpr size_t kVarintBytesMax = 10;

inline size_t varint_size(uint64_t value) {
    return (static_cast<size_t>(std::bit_width(value | 1)) + 6) / 7;
}

// Writes at most kVarintBytesMax bytes and returns the end.
inline uint8_t* write_varint(uint8_t* target, uint64_t value) {
    while (value >= 0x80) {
        *target++ = static_cast<uint8_t>(value | 0x80);
        value >>= 7;
    }
    *target++ = static_cast<uint8_t>(value);
    return target;
}

// Returns the end of the varint at `at`, or nullptr when it is cut off or does not fit 64 bits.
inline const uint8_t* read_varint_checked(const uint8_t* at, const uint8_t* end, uint64_t& value) {
    uint64_t sum = 0;
    for (unsigned shift = 0; shift < 70 && at != end; shift += 7) {
        const uint64_t byte = *at++;
        if (shift == 63 && byte > 1) return nullptr;
        sum |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            value = sum;
            return at;
        }
    }
    return nullptr;
}

// The same. Eight bytes are read at once where that many are left: lengths of ids are random, and
// a branch a byte would be mispredicted on most of them.
inline const uint8_t* read_varint(const uint8_t* at, const uint8_t* end, uint64_t& value) {
    if constexpr (std::endian::native == std::endian::little) {
        if (end - at >= static_cast<ptrdiff_t>(kVarintBytesMax)) {
            uint64_t word;
            std::memcpy(&word, at, 8);
            const uint64_t stops = ~word & 0x8080808080808080u;
            if (stops == 0) return read_varint_checked(at, end, value);
            word &= stops ^ (stops - 1);
            word = (word & 0x007f007f007f007fu) | ((word & 0x7f007f007f007f00u) >> 1);
            word = (word & 0x00003fff00003fffu) | ((word & 0x3fff00003fff0000u) >> 2);
            value = (word & 0x000000000fffffffu) | ((word & 0x0fffffff00000000u) >> 4);
            return at + std::countr_zero(stops) / 8 + 1;
        }
    }
    return read_varint_checked(at, end, value);
}

}  // namespace cube
