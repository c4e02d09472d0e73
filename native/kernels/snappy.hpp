#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/protobuf.hpp"

namespace cube {

// Raw Snappy, as brpc compresses payloads: a varint with the length, then literals and copies.

// The length that `compressed` says it has when it is expanded. Throws Error(kWire) when it says
// none, Error(kLimit) when it is over `bytes_max`.
size_t snappy_size(Bytes compressed, size_t bytes_max);

// Expands into `target`, which has room for `snappy_size` bytes. Throws Error(kWire) for anything
// that does not give exactly so many.
void snappy_expand(Bytes compressed, uint8_t* target);

}  // namespace cube
