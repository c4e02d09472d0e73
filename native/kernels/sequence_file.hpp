#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/file.hpp"
#include "kernels/file_window.hpp"
#include "kernels/sequence_header.hpp"

namespace cube {

// Width of a value, and so of a row: what a table takes.
inline constexpr size_t kSequenceValueBytesMax = 65535;

// How keys and values stand inside a record.
//   paddle: the key's 8 bytes little-endian, the value; whatever the class names say.
//   hadoop: BytesWritable with its u32be length before the bytes (a key's 8 bytes are
//           little-endian, as Paddle's tools fill them), or LongWritable keys, 8 bytes big-endian.
enum class SequenceDialect { kPaddle, kHadoop };

struct SequenceBatch {
    size_t count = 0;
    size_t width = 0;
    std::unique_ptr<uint64_t[]> keys;
    std::unique_ptr<uint8_t[]> values;  // [count, width]
};

// Reads the records of one file in order. Thread-safe: each batch goes to one caller.
class SequenceFileReader {
  public:
    // Throws Error(kSequenceFile) or OsError.
    explicit SequenceFileReader(const std::string& path);

    const std::string& path() const { return window_.path(); }
    const SequenceHeader& header() const { return header_; }
    // None when the file has no records.
    std::optional<SequenceDialect> dialect() const { return dialect_; }
    // Of every value; 0 when the file has no records.
    size_t width() const { return dialect_ ? width_ : 0; }
    uint64_t file_bytes() const { return window_.file_bytes(); }
    uint64_t offset();
    // At most `records_max` (over 0) records; none at the end. Throws Error(kSequenceFile).
    SequenceBatch read(size_t records_max);

  private:
    void learn_record_shape();
    bool at_record();
    void skip_sync_marker();
    void take_record(uint64_t& key, uint8_t* value);
    uint64_t key_of(const uint8_t* key_field) const;
    bool lengths_agree(const uint8_t* record) const;
    [[noreturn]] void fail(const std::string& problem) const;
    [[noreturn]] void fail_as_cut_off() const;
    [[noreturn]] void fail_as_other_shape(const uint8_t* record) const;

    std::mutex mutex_;
    FileWindow window_;
    SequenceHeader header_;
    std::optional<SequenceDialect> dialect_;
    // Every record of a file has the same shape, that of the first: both lengths, key, value.
    uint8_t record_lengths_[8] = {};
    bool long_keys_ = false;
    size_t inner_length_bytes_ = 0;  // of the hadoop dialect's BytesWritable
    size_t key_bytes_ = 0;
    size_t value_bytes_ = 0;   // as stored, with an inner length
    size_t record_bytes_ = 0;  // both lengths included
    size_t width_ = 0;
};

// Writes one file, BytesWritable to BytesWritable. Thread-safe.
class SequenceFileWriter {
  public:
    SequenceFileWriter(const std::string& path, SequenceDialect dialect);

    // `values` is [count, width]; every call must have the same width. Throws OsError, and
    // std::invalid_argument for a width that does not fit or a closed file.
    void append(size_t count, size_t width, const uint64_t* keys, const uint8_t* values);
    // Makes the file durable under its name; without it nothing is left. A second call does
    // nothing.
    void close();
    // Removes what was written, unless closed; no more can follow.
    void discard();

  private:
    enum class State { kOpen, kFailed, kClosed };

    void require_open() const;
    void require_fitting(size_t width);
    uint8_t* write_record(uint8_t* target, uint64_t key, const uint8_t* value) const;
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
