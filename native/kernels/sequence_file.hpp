#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/file.hpp"
#include "kernels/sequence_header.hpp"
#include "kernels/sequence_pair.hpp"
#include "kernels/sequence_records.hpp"

namespace cube {

struct SequenceBatch {
    size_t count = 0;
    size_t width = 0;
    std::unique_ptr<uint64_t[]> keys;
    std::unique_ptr<uint8_t[]> values;  // [count, width]
};

// Values of any width, end to end: the i-th is between offsets i and i + 1.
struct SequenceBytesBatch {
    std::vector<uint64_t> keys;
    std::vector<int64_t> offsets = {0};
    std::vector<uint8_t> values;
};

// Finds the decompressor of a codec, named by its class.
using CodecOf = std::function<Decompress(const std::string&)>;

// Reads the pairs of one file in order. Thread-safe: each batch goes to one caller.
class SequenceFileReader {
  public:
    // Without `codec_of` compressed files are refused. With kTaken `read_bytes` takes records with
    // an empty value. Throws Error(kSequenceFile), OsError, and what `codec_of` and its
    // decompressors throw.
    explicit SequenceFileReader(const std::string& path, const CodecOf& codec_of = {},
                                EmptyValues empty_values = EmptyValues::kRefused);

    const std::string& path() const { return records_.window().path(); }
    const SequenceHeader& header() const { return records_.header(); }
    // None when the file has no records.
    std::optional<SequenceDialect> dialect() const;
    // Of every value; 0 when the file has no records, or the first has an empty value.
    size_t width() const { return decoder_ ? decoder_->width() : 0; }
    uint64_t file_bytes() const { return records_.window().file_bytes(); }
    uint64_t offset();
    // At most `records_max` (over 0) records, fewer where a block ends; none at the end. Throws
    // Error(kSequenceFile).
    SequenceBatch read(size_t records_max);
    // The same for values of any width; ends with the record that brings them to `bytes_max`.
    SequenceBytesBatch read_bytes(size_t records_max, size_t bytes_max);

  private:
    std::mutex mutex_;
    SequenceRecords records_;
    std::optional<PairDecoder> decoder_;
};

// Writes one file, BytesWritable to BytesWritable. Thread-safe.
class SequenceFileWriter {
  public:
    SequenceFileWriter(const std::string& path, SequenceDialect dialect);

    // `values` is [count, width]; every call must have the same width. Throws OsError, and
    // std::invalid_argument for a width that does not fit or a closed file.
    void append(size_t count, size_t width, const uint64_t* keys, const uint8_t* values);
    // The same for values of any width, end to end, cut by count + 1 offsets that rise.
    void append_bytes(size_t count, const uint64_t* keys, const int64_t* offsets,
                      const uint8_t* values);
    // Makes the file durable under its name; without it nothing is left. A second call does
    // nothing.
    void close();
    // Removes what was written, unless closed; no more can follow.
    void discard();

  private:
    enum class State { kOpen, kFailed, kClosed };

    void require_open() const;
    void require_fitting(size_t width);
    uint8_t* write_record(uint8_t* target, uint64_t key, const uint8_t* value, size_t width) const;
    template <class ValueAt>
    void append_records(size_t count, const uint64_t* keys, size_t width_max, ValueAt&& value_at);
    void flush(size_t size);

    std::mutex mutex_;
    std::optional<ReplacementFile> file_;
    SequenceDialect dialect_;
    SyncMarker sync_marker_;
    State state_ = State::kOpen;
    size_t width_ = 0;
    size_t bytes_since_sync_ = 0;
    std::vector<uint8_t> block_;
};

}  // namespace cube
