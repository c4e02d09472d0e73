#include "kernels/sequence_records.hpp"

#include <cstring>

#include "kernels/big_endian.hpp"
#include "kernels/error.hpp"
#include "kernels/hadoop_vint.hpp"

namespace cube {

namespace {

constexpr size_t kLengthsBytes = 8;
constexpr uint32_t kSyncEscape = 0xffffffff;
constexpr size_t kRecordBytesMax = FileWindow::kNeedBytesMax - kLengthsBytes;

}  // namespace

SequenceRecords::SequenceRecords(const std::string& path)
    : window_(path), header_(read_sequence_header(window_)) {}

void SequenceRecords::fail(const std::string& problem) const {
    throw Error(ErrorKind::kSequenceFile, window_.path() + ": " + problem + " (offset " +
                                              std::to_string(window_.offset()) + ")");
}

void SequenceRecords::fail_as_cut_off() const {
    fail(header_.compression == SequenceCompression::kBlock
             ? "the file ends inside a block or sync marker"
             : "the file ends inside a record or sync marker");
}

bool SequenceRecords::at_record() {
    if (header_.compression != SequenceCompression::kBlock) return at_plain_record();
    while (records_left_ == 0) {
        if (window_.remaining() == 0) return false;
        if (!skip_sync_marker()) fail("no sync marker before a block");
        // A writer that is closed between two blocks may leave a marker with nothing after it.
        if (window_.remaining() > 0) load_block();
    }
    return true;
}

bool SequenceRecords::at_plain_record() {
    while (window_.remaining() > 0) {
        if (!skip_sync_marker()) return true;
    }
    return false;
}

// False when something else stands here.
bool SequenceRecords::skip_sync_marker() {
    const uint8_t* length = window_.need(4);
    if (length == nullptr) fail_as_cut_off();
    if (load_u32be(length) != kSyncEscape) return false;
    const uint8_t* escape = window_.need(4 + kSyncMarkerBytes);
    if (escape == nullptr) fail_as_cut_off();
    if (std::memcmp(escape + 4, header_.sync_marker.data(), kSyncMarkerBytes) != 0)
        fail("the sync marker is not that of the header");
    window_.advance(4 + kSyncMarkerBytes);
    return true;
}

SequenceRecord SequenceRecords::current() {
    if (!read_) {
        record_ = header_.compression == SequenceCompression::kBlock ? current_of_block()
                                                                     : current_plain();
        read_ = true;
    }
    return record_;
}

void SequenceRecords::advance() {
    if (header_.compression != SequenceCompression::kBlock)
        window_.advance(record_bytes_);
    else if (--records_left_ == 0 && (key_lengths_.left() > 0 || keys_.left() > 0 ||
                                      value_lengths_.left() > 0 || values_.left() > 0))
        fail("a block has more bytes than its records take");
    read_ = false;
}

uint64_t SequenceRecords::records_max() const {
    if (header_.compression == SequenceCompression::kBlock) return records_left_;
    return window_.remaining() / kLengthsBytes + 1;
}

SequenceRecord SequenceRecords::current_plain() {
    const uint8_t* lengths = window_.need(kLengthsBytes);
    if (lengths == nullptr) fail_as_cut_off();
    const size_t content_bytes = load_u32be(lengths);
    const size_t key_bytes = load_u32be(lengths + 4);
    if (content_bytes > kRecordBytesMax || key_bytes > content_bytes)
        fail("a record of " + std::to_string(content_bytes) + " bytes with a key of " +
             std::to_string(key_bytes) + "; supported are records of up to " +
             std::to_string(kRecordBytesMax) + ", their keys included");
    const uint8_t* record = window_.need(kLengthsBytes + content_bytes);
    if (record == nullptr) fail_as_cut_off();
    record_bytes_ = kLengthsBytes + content_bytes;
    const uint8_t* key = record + kLengthsBytes;
    std::span<const uint8_t> value{key + key_bytes, content_bytes - key_bytes};
    if (header_.compression == SequenceCompression::kRecord) {
        value_ = decompressed(value);
        value = value_;
    }
    return {{key, key_bytes}, value};
}

std::vector<uint8_t> SequenceRecords::decompressed(std::span<const uint8_t> bytes) {
    try {
        return decompress_(bytes, kSequenceBlockBytesMax);
    } catch (const RecordFault& fault) {
        fail(header_.codec + ": " + fault.what());
    }
}

int64_t SequenceRecords::take_vint() {
    const uint8_t* first = window_.need(1);
    if (first == nullptr) fail_as_cut_off();
    const size_t size = hadoop_vint_bytes(*first);
    const uint8_t* at = window_.need(size);
    if (at == nullptr) fail_as_cut_off();
    const int64_t value = load_hadoop_vint(at);
    window_.advance(size);
    return value;
}

void SequenceRecords::load_block() {
    const int64_t count = take_vint();
    load_part(key_lengths_);
    load_part(keys_);
    load_part(value_lengths_);
    load_part(values_);
    // Every length has at least one byte.
    if (count <= 0 || static_cast<uint64_t>(count) > key_lengths_.bytes.size())
        fail("a block of " + std::to_string(count) + " records with " +
             std::to_string(key_lengths_.bytes.size()) + " bytes of key lengths");
    records_left_ = static_cast<uint64_t>(count);
}

void SequenceRecords::load_part(Part& part) {
    const int64_t size = take_vint();
    if (size < 0 || static_cast<uint64_t>(size) > window_.remaining()) fail_as_cut_off();
    std::vector<uint8_t> compressed(static_cast<size_t>(size));
    if (!window_.take(compressed.data(), compressed.size())) fail_as_cut_off();
    part = {decompressed(compressed), 0};
}

SequenceRecord SequenceRecords::current_of_block() {
    const std::span<const uint8_t> key = next_field(key_lengths_, keys_);
    return {key, next_field(value_lengths_, values_)};
}

size_t SequenceRecords::next_length(Part& lengths) {
    const uint8_t* at = lengths.bytes.data() + lengths.at;
    int64_t length = 0;
    const uint8_t* end = read_hadoop_vint(at, at + lengths.left(), length);
    if (end == nullptr || length < 0) fail("a block's lengths do not fit its records");
    lengths.at += static_cast<size_t>(end - at);
    return static_cast<size_t>(length);
}

std::span<const uint8_t> SequenceRecords::next_field(Part& lengths, Part& fields) {
    const size_t length = next_length(lengths);
    if (length > fields.left()) fail("a block's lengths do not fit its records");
    const std::span<const uint8_t> field{fields.bytes.data() + fields.at, length};
    fields.at += length;
    return field;
}

}  // namespace cube
