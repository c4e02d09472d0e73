#include "kernels/seek_response.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/dict_value.hpp"

namespace cube {

namespace {

uint8_t* write_version(uint8_t* target, std::string_view version) {
    *target++ = 0x12;
    target = write_varint(target, version.size());
    return std::copy(version.begin(), version.end(), target);
}

// kWidth 0 stands for any width.
template <size_t kWidth>
uint8_t* write_values(const Table& table, std::span<const uint64_t> keys, uint8_t* target,
                      size_t& missing_count) {
    const size_t width = kWidth != 0 ? kWidth : table.value_bytes();
    const FoundHead head(width);
    const size_t head_size = head.size;
    size_t missing = 0;
    table.find_each(keys, [&](size_t, const uint8_t* value) {
        if (value == nullptr) [[unlikely]] {
            std::memcpy(target, kMissingValue, sizeof(kMissingValue));
            target += sizeof(kMissingValue);
            ++missing;
            return;
        }
        std::memcpy(target, head.bytes, FoundHead::kBytesMax);
        std::memcpy(target + head_size, value, width);
        target += head_size + width;
    });
    missing_count = missing;
    return target;
}

using WriteValues = uint8_t* (*)(const Table&, std::span<const uint64_t>, uint8_t*, size_t&);

// Widths of 1, 8, 10, 16, 32 and 64 float32, where a copy of known length is a few instructions.
WriteValues values_writer(size_t value_bytes) {
    switch (value_bytes) {
        case 4:
            return write_values<4>;
        case 32:
            return write_values<32>;
        case 40:
            return write_values<40>;
        case 64:
            return write_values<64>;
        case 128:
            return write_values<128>;
        case 256:
            return write_values<256>;
        default:
            return write_values<0>;
    }
}

}  // namespace

size_t seek_response_size_max(size_t key_count, size_t value_bytes, std::string_view version) {
    const size_t found = FoundHead(value_bytes).size + value_bytes;
    const size_t named = version.empty() ? 0 : 1 + varint_size(version.size()) + version.size();
    return key_count * std::max(found, sizeof(kMissingValue)) + named;
}

SeekResponse write_seek_response(const Table& table, std::span<const uint64_t> keys,
                                 std::string_view version, uint8_t* target) {
    SeekResponse response;
    uint8_t* end = values_writer(table.value_bytes())(table, keys, target, response.missing_count);
    if (!version.empty()) end = write_version(end, version);
    response.bytes = static_cast<size_t>(end - target);
    return response;
}

}  // namespace cube
