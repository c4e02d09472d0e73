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

// How a value as stored gets into the response: a copy of known length, 0 for any, or the float32
// that it stands for.
template <size_t kWidth>
struct Copy {
    static size_t width(const Table& table) { return kWidth != 0 ? kWidth : table.value_bytes(); }
    static void write(const uint8_t* stored, size_t width, uint8_t* target) {
        std::memcpy(target, stored, width);
    }
};

template <void (*kExpand)(const uint8_t*, size_t, uint8_t*)>
struct Expand {
    static size_t width(const Table& table) { return table.value_bytes(); }
    static void write(const uint8_t* stored, size_t width, uint8_t* target) {
        kExpand(stored, width / sizeof(float), target);
    }
};

template <class Value>
uint8_t* write_values(const Table& table, std::span<const uint64_t> keys, uint8_t* target,
                      size_t& missing_count) {
    const size_t width = Value::width(table);
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
        Value::write(value, width, target + head_size);
        target += head_size + width;
    });
    missing_count = missing;
    return target;
}

using WriteValues = uint8_t* (*)(const Table&, std::span<const uint64_t>, uint8_t*, size_t&);

// Widths of 1, 8, 10, 16, 32 and 64 float32, where a copy of known length is a few instructions.
WriteValues values_writer(const TableHeader& header) {
    if (header.value_kind == ValueKind::kFp16) return write_values<Expand<expand_fp16>>;
    if (header.value_kind == ValueKind::kInt8) return write_values<Expand<expand_int8>>;
    switch (header.value_bytes) {
        case 4:
            return write_values<Copy<4>>;
        case 32:
            return write_values<Copy<32>>;
        case 40:
            return write_values<Copy<40>>;
        case 64:
            return write_values<Copy<64>>;
        case 128:
            return write_values<Copy<128>>;
        case 256:
            return write_values<Copy<256>>;
        default:
            return write_values<Copy<0>>;
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
    uint8_t* end = values_writer(table.header())(table, keys, target, response.missing_count);
    if (!version.empty()) end = write_version(end, version);
    response.bytes = static_cast<size_t>(end - target);
    return response;
}

}  // namespace cube
