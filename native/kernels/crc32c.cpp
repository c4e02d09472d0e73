#include "kernels/crc32c.hpp"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>

#include "kernels/cpu.hpp"
#endif

namespace cube {

namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // Castagnoli, bits reversed

using ByteTables = std::array<std::array<uint32_t, 256>, 8>;

constexpr ByteTables make_byte_tables() {
    ByteTables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
        tables[0][byte] = crc;
    }
    for (size_t level = 1; level < 8; ++level)
        for (size_t byte = 0; byte < 256; ++byte) {
            const uint32_t below = tables[level - 1][byte];
            tables[level][byte] = (below >> 8) ^ tables[0][below & 0xff];
        }
    return tables;
}

constexpr ByteTables kByteTables = make_byte_tables();

uint32_t step_byte(uint32_t crc, uint8_t byte) {
    return (crc >> 8) ^ kByteTables[0][(crc ^ byte) & 0xff];
}

#if defined(__x86_64__)

// The instruction takes three cycles and starts one every cycle, so three stretches run side by
// side; appending `stretch` zero bytes to a CRC (a linear map, one table a byte) joins them.
constexpr unsigned kLongStretchLog2 = 13;
constexpr unsigned kShortStretchLog2 = 8;

class ZeroAppender {
  public:
    // Appends 2^zeros_log2 zero bytes: one, doubled as often.
    explicit ZeroAppender(unsigned zeros_log2) : tables_(tabulate(append_one)) {
        for (; zeros_log2 > 0; --zeros_log2)
            tables_ = tabulate([this](uint32_t crc) { return (*this)((*this)(crc)); });
    }
    uint32_t operator()(uint32_t crc) const {
        return tables_[0][crc & 0xff] ^ tables_[1][(crc >> 8) & 0xff] ^
               tables_[2][(crc >> 16) & 0xff] ^ tables_[3][crc >> 24];
    }

  private:
    using Tables = std::array<std::array<uint32_t, 256>, 4>;

    static uint32_t append_one(uint32_t crc) { return step_byte(crc, 0); }
    template <class Map>
    static Tables tabulate(Map&& map) {
        Tables tables;
        for (size_t level = 0; level < 4; ++level)
            for (uint32_t byte = 0; byte < 256; ++byte)
                tables[level][byte] = map(byte << (8 * level));
        return tables;
    }

    Tables tables_;
};

uint64_t load64(const uint8_t* at) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    return word;
}

__attribute__((target("sse4.2"))) uint64_t three_stretches(uint64_t crc, const uint8_t*& at,
                                                           const uint8_t* end, size_t stretch,
                                                           const ZeroAppender& append) {
    while (static_cast<size_t>(end - at) >= 3 * stretch) {
        uint64_t second = 0;
        uint64_t third = 0;
        for (const uint8_t* stop = at + stretch; at < stop; at += 8) {
            crc = _mm_crc32_u64(crc, load64(at));
            second = _mm_crc32_u64(second, load64(at + stretch));
            third = _mm_crc32_u64(third, load64(at + 2 * stretch));
        }
        crc = append(static_cast<uint32_t>(crc)) ^ second;
        crc = append(static_cast<uint32_t>(crc)) ^ third;
        at += 2 * stretch;
    }
    return crc;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(uint32_t value, const void* data,
                                                        size_t size) {
    static const ZeroAppender append_long(kLongStretchLog2);
    static const ZeroAppender append_short(kShortStretchLog2);
    const uint8_t* at = static_cast<const uint8_t*>(data);
    const uint8_t* end = at + size;
    uint64_t crc = ~value;
    crc = three_stretches(crc, at, end, size_t{1} << kLongStretchLog2, append_long);
    crc = three_stretches(crc, at, end, size_t{1} << kShortStretchLog2, append_short);
    for (; end - at >= 8; at += 8) crc = _mm_crc32_u64(crc, load64(at));
    for (; at < end; ++at) crc = _mm_crc32_u8(static_cast<uint32_t>(crc), *at);
    return ~static_cast<uint32_t>(crc);
}

#endif

}  // namespace

uint32_t crc32c_portable(uint32_t value, const void* data, size_t size) {
    const uint8_t* at = static_cast<const uint8_t*>(data);
    const uint8_t* end = at + size;
    uint32_t crc = ~value;
    if constexpr (std::endian::native == std::endian::little) {
        for (; end - at >= 8; at += 8) {
            uint64_t word;
            std::memcpy(&word, at, 8);
            word ^= crc;
            crc = 0;
            for (size_t i = 0; i < 8; ++i) crc ^= kByteTables[7 - i][(word >> (8 * i)) & 0xff];
        }
    }
    for (; at < end; ++at) crc = step_byte(crc, *at);
    return ~crc;
}

uint32_t crc32c(uint32_t value, const void* data, size_t size) {
#if defined(__x86_64__)
    if (cpu_level() >= CpuLevel::kSse42) return crc32c_sse42(value, data, size);
#endif
    return crc32c_portable(value, data, size);
}

}  // namespace cube
