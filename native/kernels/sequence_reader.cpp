#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/big_endian.hpp"
#include "kernels/error.hpp"
#include "kernels/sequence_file.hpp"

namespace cube {

namespace {

constexpr size_t kLengthsBytes = 8;
constexpr size_t kKeyBytes = 8;
constexpr size_t kInnerLengthBytes = 4;
constexpr uint32_t kSyncEscape = 0xffffffff;
// Lengths, key and value of the largest record.
static_assert(kLengthsBytes + 2 * kInnerLengthBytes + kKeyBytes + kSequenceValueBytesMax <=
              FileWindow::kNeedBytesMax);

std::string bytes_text(size_t count) {
    return std::to_string(count) + (count == 1 ? " byte" : " bytes");
}

}  // namespace

SequenceFileReader::SequenceFileReader(const std::string& path)
    : window_(path), header_(read_sequence_header(window_)) {
    if (at_record()) learn_record_shape();
}

uint64_t SequenceFileReader::offset() {
    const std::lock_guard lock(mutex_);
    return window_.offset();
}

void SequenceFileReader::fail(const std::string& problem) const {
    throw Error(ErrorKind::kSequenceFile,
                path() + ": " + problem + " (offset " + std::to_string(window_.offset()) + ")");
}

void SequenceFileReader::fail_as_cut_off() const {
    fail("the file ends inside a record or sync marker");
}

// Moves past sync markers; false at the end of the file.
bool SequenceFileReader::at_record() {
    while (window_.remaining() > 0) {
        const uint8_t* length = window_.need(4);
        if (length == nullptr) fail_as_cut_off();
        if (load_u32be(length) != kSyncEscape) return true;
        skip_sync_marker();
    }
    return false;
}

void SequenceFileReader::skip_sync_marker() {
    const uint8_t* escape = window_.need(4 + kSyncMarkerBytes);
    if (escape == nullptr) fail_as_cut_off();
    if (std::memcmp(escape + 4, header_.sync_marker.data(), kSyncMarkerBytes) != 0)
        fail("the sync marker is not that of the header");
    window_.advance(4 + kSyncMarkerBytes);
}

// The first record tells the dialect and the width for the whole file.
void SequenceFileReader::learn_record_shape() {
    const uint8_t* lengths = window_.need(kLengthsBytes);
    if (lengths == nullptr) fail_as_cut_off();
    const size_t record_bytes = load_u32be(lengths);
    key_bytes_ = load_u32be(lengths + 4);
    long_keys_ = header_.key_class == kLongWritable;
    const bool raw = key_bytes_ == kKeyBytes && !long_keys_;
    inner_length_bytes_ = raw ? 0 : kInnerLengthBytes;
    const size_t key_bytes_expected = kKeyBytes + (long_keys_ ? 0 : inner_length_bytes_);
    if (key_bytes_ != key_bytes_expected)
        fail("a key of " + bytes_text(key_bytes_) + " (" + header_.key_class + "); supported are " +
             (long_keys_ ? "8" : "8 (Paddle's raw keys) and 12 (Hadoop's, with a length)"));
    const size_t overhead = key_bytes_ + inner_length_bytes_;
    if (record_bytes <= overhead || record_bytes - overhead > kSequenceValueBytesMax)
        fail("a record of " + bytes_text(record_bytes) + "; with its key it must have " +
             std::to_string(overhead + 1) + " to " +
             std::to_string(overhead + kSequenceValueBytesMax));
    width_ = record_bytes - overhead;
    value_bytes_ = record_bytes - key_bytes_;
    record_bytes_ = kLengthsBytes + record_bytes;
    const uint8_t* record = window_.need(record_bytes_);
    if (record == nullptr) fail_as_cut_off();
    std::memcpy(record_lengths_, record, kLengthsBytes);
    if (!lengths_agree(record))
        fail("the lengths inside the first record's BytesWritable do not agree with the record's");
    dialect_ = raw ? SequenceDialect::kPaddle : SequenceDialect::kHadoop;
}

// Whether the BytesWritable inside a record count what the record's own lengths leave them.
bool SequenceFileReader::lengths_agree(const uint8_t* record) const {
    if (inner_length_bytes_ == 0) return true;
    const uint8_t* key = record + kLengthsBytes;
    if (!long_keys_ && load_u32be(key) != kKeyBytes) return false;
    return load_u32be(key + key_bytes_) == width_;
}

uint64_t SequenceFileReader::key_of(const uint8_t* key_field) const {
    return long_keys_ ? load_u64be(key_field) : load_u64le(key_field + key_bytes_ - kKeyBytes);
}

void SequenceFileReader::fail_as_other_shape(const uint8_t* record) const {
    const size_t record_bytes = load_u32be(record);
    const size_t key_bytes = load_u32be(record + 4);
    const size_t overhead = key_bytes_ + inner_length_bytes_;
    if (key_bytes != key_bytes_)
        fail("a key of " + bytes_text(key_bytes) + "; the file's first has " +
             std::to_string(key_bytes_));
    const uint8_t* with_key = window_.available() >= kLengthsBytes + key_bytes_ ? record : nullptr;
    const std::string key =
        with_key == nullptr ? "?" : std::to_string(key_of(with_key + kLengthsBytes));
    if (record_bytes <= overhead)
        fail("key " + key + ": a record of " + bytes_text(record_bytes) + " has no value");
    fail("key " + key + ": a value of " + bytes_text(record_bytes - overhead) +
         "; the file's first has " + std::to_string(width_));
}

void SequenceFileReader::take_record(uint64_t& key, uint8_t* value) {
    const uint8_t* record = window_.need(record_bytes_);
    const uint8_t* lengths = record != nullptr ? record : window_.need(kLengthsBytes);
    if (lengths == nullptr) fail_as_cut_off();
    if (std::memcmp(lengths, record_lengths_, kLengthsBytes) != 0) fail_as_other_shape(lengths);
    if (record == nullptr) fail_as_cut_off();
    key = key_of(record + kLengthsBytes);
    if (!lengths_agree(record))
        fail("key " + std::to_string(key) +
             ": the lengths inside its BytesWritable do not agree with the record's");
    std::memcpy(value, record + record_bytes_ - width_, width_);
    window_.advance(record_bytes_);
}

SequenceBatch SequenceFileReader::read(size_t records_max) {
    const std::lock_guard lock(mutex_);
    SequenceBatch batch;
    batch.width = width_;
    if (!dialect_) return batch;
    // What the file can still hold bounds the allocation, whatever the caller asks for.
    const size_t capacity = static_cast<size_t>(
        std::min<uint64_t>(records_max, window_.remaining() / record_bytes_ + 1));
    batch.keys.reset(new uint64_t[capacity]);
    batch.values.reset(new uint8_t[capacity * width_]);
    while (batch.count < capacity && at_record()) {
        take_record(batch.keys[batch.count], batch.values.get() + batch.count * width_);
        ++batch.count;
    }
    return batch;
}

}  // namespace cube
