#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/file_window.hpp"

namespace cube {

inline constexpr size_t kSyncMarkerBytes = 16;
inline constexpr char kBytesWritable[] = "org.apache.hadoop.io.BytesWritable";
inline constexpr char kLongWritable[] = "org.apache.hadoop.io.LongWritable";

using SyncMarker = std::array<uint8_t, kSyncMarkerBytes>;

// What stands before the first record of an uncompressed SequenceFile of version 6.
struct SequenceHeader {
    std::string key_class;
    std::string value_class;
    SyncMarker sync_marker;
};

// Reads the header at the start of `window` and leaves it at the first record. Throws
// Error(kSequenceFile) for what is cut off, compressed or of another version or class.
SequenceHeader read_sequence_header(FileWindow& window);

std::vector<uint8_t> encode_sequence_header(const SequenceHeader& header);

}  // namespace cube
