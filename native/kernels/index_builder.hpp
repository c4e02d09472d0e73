#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/hash_index.hpp"
#include "kernels/large_vector.hpp"

namespace cube {

inline constexpr uint64_t kKeyCountMax = 0xfffffffe;

struct BuiltIndex {
    HashIndex index;
    std::vector<uint8_t> pilots;
    std::vector<uint32_t> remap;
    // For every row, the position of its pair in the input.
    LargeVector<uint32_t> input_of_row;
    uint64_t duplicate_count = 0;  // keys that a later one replaced
};

// Whether the key at a position of the input is to be left out, when it is the one that counts.
using IsLeftOut = std::function<bool(uint32_t input)>;

// Builds the perfect hash of `keys`; of equal keys the last one counts. The result depends on the
// set of keys only. Throws std::invalid_argument for more than kKeyCountMax keys.
BuiltIndex build_index(std::span<const uint64_t> keys, const IsLeftOut& is_left_out = nullptr);

}  // namespace cube
