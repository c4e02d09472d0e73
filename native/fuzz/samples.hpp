#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/table.hpp"

namespace cube::fuzz {

using ByteVector = std::vector<uint8_t>;

// Keys 0, 3, 6, … with values of `value_bytes`, version "7_9".
ByteVector table_bytes(size_t count, size_t value_bytes, ValueKind kind);
// The same as a delta over "7_7", but for the keys 3, 9, 33 and 1, which it deletes.
ByteVector delta_bytes(size_t count, size_t value_bytes, ValueKind kind);
std::shared_ptr<const Table> opened(const ByteVector& bytes);
// 1,000 of them with values of 12 bytes.
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
