#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

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

// Values of variable width, found before there is room for them: so much is known of the answer.
struct FoundValues {
    std::vector<std::span<const uint8_t>> values;  // without data where the key is missing
    size_t response_bytes = 0;
};

// Looks up `keys` of a table of variable width; response_bytes counts the version too.
FoundValues find_values(const Table& table, std::span<const uint64_t> keys,
                        std::string_view version);
// Writes DictResponse, `response_bytes` and nothing after them but up to kSeekResponseSlack.
SeekResponse write_found_values(const FoundValues& found, std::string_view version,
                                uint8_t* target);

}  // namespace cube
