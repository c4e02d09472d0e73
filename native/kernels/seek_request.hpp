#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/protobuf.hpp"

namespace cube {

// A parsed DictRequest; its keys are in the vector they were appended to.
struct SeekRequest {
    size_t key_count = 0;
    bool version_required = false;
    bool has_version = false;
    std::string_view version;
    bool has_dict_name = false;
    std::string_view dict_name;
};

// Parses DictRequest bytes and appends their keys to `keys`. Throws Error(kWire) for malformed
// bytes, Error(kLimit) for more than `keys_max` keys.
SeekRequest parse_seek_request(Bytes payload, size_t keys_max, std::vector<uint64_t>& keys);

}  // namespace cube
