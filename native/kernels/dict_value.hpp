#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/protobuf.hpp"
#include "kernels/varint.hpp"

namespace cube {

inline constexpr uint32_t kStatusOnWireMissing = 0xffffffff;

// DictResponse.values{status 4294967295, value ""}
inline constexpr uint8_t kMissingValue[] = {0x0a, 0x08, 0x08, 0xff, 0xff,
                                            0xff, 0xff, 0x0f, 0x12, 0x00};

// DictResponse.values{status 0, value of `value_bytes`}, up to the value.
struct FoundHead {
    static constexpr size_t kBytesMax = 16;

    explicit FoundHead(size_t value_bytes) {
        uint8_t* at = bytes;
        *at++ = 0x0a;
        at = write_varint(at, 2 + 1 + varint_size(value_bytes) + value_bytes);
        *at++ = 0x08;
        *at++ = 0x00;
        *at++ = 0x12;
        at = write_varint(at, value_bytes);
        size = static_cast<size_t>(at - bytes);
    }
    static size_t size_of(size_t value_bytes) {
        return 4 + varint_size(3 + varint_size(value_bytes) + value_bytes) +
               varint_size(value_bytes);
    }
    uint8_t bytes[kBytesMax] = {};
    size_t size;
};

// DictResponse.values as it came; `value` is a part of the message.
struct DictValue {
    uint32_t status = 0;
    Bytes value;
};

// Throws Error(kWire) for what lacks a field, or for a status that is neither of the two.
DictValue parse_dict_value(ProtobufReader reader);

}  // namespace cube
