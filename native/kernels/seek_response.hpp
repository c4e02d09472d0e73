#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/dict_value.hpp"
#include "kernels/table.hpp"

namespace cube {

// Bytes of DictResponse when every key is found: it is never longer.
size_t seek_response_size_max(size_t key_count, size_t value_bytes, std::string_view version);
// What `target` must have room for on top of that, so that values are copied in whole words.
inline constexpr size_t kSeekResponseSlack = FoundHead::kBytesMax;

struct SeekResponse {
    size_t bytes = 0;
    size_t missing_count = 0;
};

// Looks up `keys` and writes DictResponse; the version is left out when `version` is empty.
SeekResponse write_seek_response(const Table& table, std::span<const uint64_t> keys,
                                 std::string_view version, uint8_t* target);

}  // namespace cube
