#pragma once

#include <cstdint>
#include <span>

#include "kernels/large_vector.hpp"

namespace cube {

struct HashedKey {
    uint64_t hash;
    uint32_t input;  // position of the key in the input
};

// The hashes of `keys` with `seed`, ascending and without repetition: of equal keys, the last.
LargeVector<HashedKey> sorted_hashes(std::span<const uint64_t> keys, uint64_t seed);

}  // namespace cube
