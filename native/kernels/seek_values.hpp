#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/protobuf.hpp"
#include "kernels/seek_plan.hpp"

namespace cube {

// The answer to one key, whatever its width; `value` is a part of the response.
struct SeekValue {
    Bytes value;
    int32_t status = kStatusFailed;
};

// Reads DictResponse `body`, whose i-th value goes to values[positions[i]]. Throws Error(kWire)
// when it is malformed or has another number of values.
SeekVersion decode_seek_values(Bytes body, std::span<const uint32_t> positions,
                               std::span<SeekValue> values);

// The values of a batch, end to end: the i-th is between offsets i and i + 1. `offsets` has room
// for one more than there are values. Returns the bytes of all.
size_t sum_up_values(std::span<const SeekValue> values, int64_t* offsets, int32_t* status);
void copy_values(std::span<const SeekValue> values, uint8_t* target);

}  // namespace cube
