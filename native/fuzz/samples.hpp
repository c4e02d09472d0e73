#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/table.hpp"

namespace cube::fuzz {

using ByteVector = std::vector<uint8_t>;

// A table in a directory of its own that is gone when this returns: `count` keys 0, 3, 6, … with
// values of `value_bytes`, version "7_9".
ByteVector table_bytes(size_t count, size_t value_bytes);
std::shared_ptr<const Table> sample_table();

// Inputs that the code itself makes, from which a campaign starts.
std::vector<ByteVector> frame_samples();
std::vector<ByteVector> seek_request_samples();
std::vector<ByteVector> seek_response_samples();
std::vector<ByteVector> table_samples();
std::vector<ByteVector> sequence_file_samples();
std::vector<ByteVector> ctr_request_samples();
std::vector<ByteVector> snappy_samples();

}  // namespace cube::fuzz
