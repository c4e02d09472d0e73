#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "kernels/big_endian.hpp"
#include "kernels/sequence_file.hpp"

namespace cube {

namespace {

constexpr size_t kSyncIntervalBytes = 100 << 10;
constexpr size_t kBlockBytes = size_t{1} << 20;
constexpr uint32_t kKeyBytes = 8;
constexpr uint32_t kInnerLengthBytes = 4;
constexpr size_t kSyncBytes = 4 + kSyncMarkerBytes;

uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

// Equal input gives equal files, so the marker comes from the file's name and not from chance.
SyncMarker sync_marker_of(const std::string& path) {
    const std::string_view name = std::string_view(path).substr(path.rfind('/') + 1);
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (const char c : name) state = mix(state + static_cast<uint8_t>(c));
    SyncMarker marker;
    store_u64le(marker.data(), mix(state));
    store_u64le(marker.data() + 8, mix(~state));
    return marker;
}

uint32_t length_bytes(SequenceDialect dialect) {
    return dialect == SequenceDialect::kHadoop ? kInnerLengthBytes : 0;
}

}  // namespace

SequenceFileWriter::SequenceFileWriter(const std::string& path, SequenceDialect dialect)
    : dialect_(dialect), sync_marker_(sync_marker_of(path)) {
    file_.emplace(path);
    const auto header = encode_sequence_header({kBytesWritable, kBytesWritable, sync_marker_});
    file_->write(header.data(), header.size());
}

void SequenceFileWriter::require_open() const {
    if (state_ == State::kClosed) throw std::invalid_argument("the SequenceFile is closed");
    if (state_ == State::kFailed)
        throw std::invalid_argument("an earlier write of the SequenceFile failed");
}

void SequenceFileWriter::require_fitting(size_t width) {
    if (width == 0 || width > kSequenceValueBytesMax)
        throw std::invalid_argument("values of " + std::to_string(width) +
                                    " bytes; allowed are 1 to " +
                                    std::to_string(kSequenceValueBytesMax));
    if (width_ != 0 && width_ != width)
        throw std::invalid_argument("values of " + std::to_string(width) +
                                    " bytes after values of " + std::to_string(width_));
    width_ = width;
}

uint8_t* SequenceFileWriter::write_record(uint8_t* target, uint64_t key, const uint8_t* value,
                                          size_t width) const {
    const uint32_t inner = length_bytes(dialect_);
    const uint32_t value_bytes = static_cast<uint32_t>(width);
    target = store_u32be(target, kKeyBytes + value_bytes + 2 * inner);
    target = store_u32be(target, kKeyBytes + inner);
    if (inner != 0) target = store_u32be(target, kKeyBytes);
    target = store_u64le(target, key);
    if (inner != 0) target = store_u32be(target, value_bytes);
    return std::copy_n(value, width, target);
}

void SequenceFileWriter::flush(size_t size) {
    // A file with a hole in it must never get its name.
    state_ = State::kFailed;
    file_->write(block_.data(), size);
    state_ = State::kOpen;
}

template <class ValueAt>
void SequenceFileWriter::append_records(size_t count, const uint64_t* keys, size_t width_max,
                                        ValueAt&& value_at) {
    const size_t around = 8 + kKeyBytes + 2 * length_bytes(dialect_);
    block_.resize(std::max(kBlockBytes, around + width_max + kSyncBytes));
    uint8_t* target = block_.data();
    const uint8_t* const full = block_.data() + block_.size() - around - width_max - kSyncBytes;
    for (size_t i = 0; i < count; ++i) {
        if (bytes_since_sync_ >= kSyncIntervalBytes) {
            target = store_u32be(target, 0xffffffff);
            target = std::copy(sync_marker_.begin(), sync_marker_.end(), target);
            bytes_since_sync_ = 0;
        }
        const std::span<const uint8_t> value = value_at(i);
        target = write_record(target, keys[i], value.data(), value.size());
        bytes_since_sync_ += around + value.size();
        if (target > full) {
            flush(static_cast<size_t>(target - block_.data()));
            target = block_.data();
        }
    }
    flush(static_cast<size_t>(target - block_.data()));
}

void SequenceFileWriter::append(size_t count, size_t width, const uint64_t* keys,
                                const uint8_t* values) {
    const std::lock_guard lock(mutex_);
    require_open();
    require_fitting(width);
    append_records(count, keys, width,
                   [&](size_t i) { return std::span(values + i * width, width); });
}

void SequenceFileWriter::append_bytes(size_t count, const uint64_t* keys, const int64_t* offsets,
                                      const uint8_t* values) {
    const std::lock_guard lock(mutex_);
    require_open();
    for (size_t i = 0; i < count; ++i) {
        const int64_t width = offsets[i + 1] - offsets[i];
        if (width > int64_t{kSequenceValueBytesMax})
            throw std::invalid_argument("key " + std::to_string(keys[i]) + ": a value of " +
                                        std::to_string(width) + " bytes; allowed are up to " +
                                        std::to_string(kSequenceValueBytesMax));
    }
    append_records(count, keys, kSequenceValueBytesMax, [&](size_t i) {
        return std::span(values + offsets[i], static_cast<size_t>(offsets[i + 1] - offsets[i]));
    });
}

void SequenceFileWriter::close() {
    const std::lock_guard lock(mutex_);
    if (state_ == State::kClosed) return;
    require_open();
    state_ = State::kFailed;
    file_->commit();
    state_ = State::kClosed;
}

void SequenceFileWriter::discard() {
    const std::lock_guard lock(mutex_);
    file_.reset();
    state_ = State::kClosed;
}

}  // namespace cube
