#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/file_window.hpp"

namespace cube {

inline constexpr size_t kSyncMarkerBytes = 16;

using SyncMarker = std::array<uint8_t, kSyncMarkerBytes>;

enum class SequenceCompression { kNone, kRecord, kBlock };

// What stands before the first record of a SequenceFile of version 6.
struct SequenceHeader {
    std::string key_class;
    std::string value_class;
    SyncMarker sync_marker;
    SequenceCompression compression = SequenceCompression::kNone;
    std::string codec;  // class name, "" when nothing is compressed
};

// Reads the header at the start of `window` and leaves it at the first record or block. Throws
// Error(kSequenceFile) for what is cut off or of another version or class.
SequenceHeader read_sequence_header(FileWindow& window);

// That of an uncompressed file.
std::vector<uint8_t> encode_sequence_header(const SequenceHeader& header);

}  // namespace cube
