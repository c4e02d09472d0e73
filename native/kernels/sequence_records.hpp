#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/file_window.hpp"
#include "kernels/sequence_header.hpp"
#include "kernels/sequence_pair.hpp"

namespace cube {

// Bytes that one compressed block or value may have once it is decompressed: a few hundred bytes
// of a hostile file could else fill the memory.
inline constexpr size_t kSequenceBlockBytesMax = size_t{256} << 20;

// Compressed bytes and the most that may come out of them. Throws RecordFault.
using Decompress = std::function<std::vector<uint8_t>(std::span<const uint8_t>, size_t)>;

// The records of one file, one after the other, out of whatever compression they stand in. Calls
// throw Error(kSequenceFile).
class SequenceRecords {
  public:
    explicit SequenceRecords(const std::string& path);

    const SequenceHeader& header() const { return header_; }
    const FileWindow& window() const { return window_; }
    // To be set before the first record of a compressed file.
    void decompress_with(Decompress decompress) { decompress_ = std::move(decompress); }

    // Moves past sync markers, and into the next block; false at the end of the file.
    bool at_record();
    // The record that it stands at; valid until `advance`.
    SequenceRecord current();
    void advance();
    // A bound on the records to come, in this block when there are blocks.
    uint64_t records_max() const;
    [[noreturn]] void fail(const std::string& problem) const;

  private:
    // One of the four parts of a block.
    struct Part {
        std::vector<uint8_t> bytes;
        size_t at = 0;

        size_t left() const { return bytes.size() - at; }
    };

    bool at_plain_record();
    SequenceRecord current_plain();
    SequenceRecord current_of_block();
    void load_block();
    void load_part(Part& part);
    size_t next_length(Part& lengths);
    std::span<const uint8_t> next_field(Part& lengths, Part& fields);
    bool skip_sync_marker();
    int64_t take_vint();
    std::vector<uint8_t> decompressed(std::span<const uint8_t> bytes);
    [[noreturn]] void fail_as_cut_off() const;

    FileWindow window_;
    SequenceHeader header_;
    Decompress decompress_;
    bool read_ = false;  // `current` has been called where it stands
    SequenceRecord record_;
    // Plain and record-compressed files.
    size_t record_bytes_ = 0;
    std::vector<uint8_t> value_;
    // Block-compressed files.
    uint64_t records_left_ = 0;
    Part key_lengths_, keys_, value_lengths_, values_;
};

}  // namespace cube
