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

struct Expand {
    ExpandRow expand;

    static size_t width(const Table& table) { return table.value_bytes(); }
    void write(const uint8_t* stored, size_t width, uint8_t* target) const {
        expand(stored, width / sizeof(float), target);
    }
};

template <class Value>
uint8_t* write_values(Value as, const Table& table, std::span<const uint64_t> keys, uint8_t* target,
                      size_t& missing_count) {
    const size_t width = as.width(table);
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
        as.write(value, width, target + head_size);
        target += head_size + width;
    });
    missing_count = missing;
    return target;
}

uint8_t* write_all_values(const Table& table, std::span<const uint64_t> keys, uint8_t* target,
                          size_t& missing_count) {
    const auto write = [&](auto as) {
        return write_values(as, table, keys, target, missing_count);
    };
    if (table.row_expander() != nullptr) return write(Expand{table.row_expander()});
    // 1, 8, 10, 16, 32 and 64 float32, where a copy of known length is a few instructions.
    switch (table.value_bytes()) {
        case 4:
            return write(Copy<4>());
        case 32:
            return write(Copy<32>());
        case 40:
            return write(Copy<40>());
        case 64:
            return write(Copy<64>());
        case 128:
            return write(Copy<128>());
        case 256:
            return write(Copy<256>());
        default:
            return write(Copy<0>());
    }
}

}  // namespace

namespace {

size_t version_size(std::string_view version) {
    return version.empty() ? 0 : 1 + varint_size(version.size()) + version.size();
}

// Values are asked for this many keys ahead of their copy.
constexpr size_t kValuesAhead = 16;

}  // namespace

size_t seek_response_size_max(size_t key_count, size_t value_bytes, std::string_view version) {
    const size_t found = FoundHead(value_bytes).size + value_bytes;
    return key_count * std::max(found, sizeof(kMissingValue)) + version_size(version);
}

SeekResponse write_seek_response(const Table& table, std::span<const uint64_t> keys,
                                 std::string_view version, uint8_t* target) {
    SeekResponse response;
    uint8_t* end = write_all_values(table, keys, target, response.missing_count);
    if (!version.empty()) end = write_version(end, version);
    response.bytes = static_cast<size_t>(end - target);
    return response;
}

FoundValues find_values(const Table& table, std::span<const uint64_t> keys,
                        std::string_view version) {
    FoundValues found;
    found.values.resize(keys.size());
    found.response_bytes = version_size(version);
    table.find_each(keys, [&](size_t i, const uint8_t* stored) {
        if (stored == nullptr) {
            found.response_bytes += sizeof(kMissingValue);
            return;
        }
        const std::span<const uint8_t> value = table.heap_value(stored);
        found.values[i] = value;
        found.response_bytes += FoundHead::size_of(value.size()) + value.size();
    });
    return found;
}

SeekResponse write_found_values(const FoundValues& found, std::string_view version,
                                uint8_t* target) {
    SeekResponse response;
    uint8_t* const begin = target;
    const auto& values = found.values;
    for (size_t i = 0; i < values.size(); ++i) {
        if (i + kValuesAhead < values.size()) __builtin_prefetch(values[i + kValuesAhead].data());
        const std::span<const uint8_t> value = values[i];
        if (value.data() == nullptr) {
            std::memcpy(target, kMissingValue, sizeof(kMissingValue));
            target += sizeof(kMissingValue);
            ++response.missing_count;
            continue;
        }
        const FoundHead head(value.size());
        std::memcpy(target, head.bytes, FoundHead::kBytesMax);
        std::memcpy(target + head.size, value.data(), value.size());
        target += head.size + value.size();
    }
    if (!version.empty()) target = write_version(target, version);
    response.bytes = static_cast<size_t>(target - begin);
    return response;
}

}  // namespace cube
