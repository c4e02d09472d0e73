#include "kernels/sequence_header.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "kernels/big_endian.hpp"
#include "kernels/error.hpp"

namespace cube {

namespace {

constexpr uint8_t kVersion = 6;
constexpr uint8_t kMagic[] = {'S', 'E', 'Q', kVersion};
constexpr int64_t kClassNameBytesMax = 255;
constexpr int64_t kMetadataTextBytesMax = 64 << 10;
constexpr uint32_t kMetadataPairsMax = 1024;

[[noreturn]] void fail(const FileWindow& window, const std::string& problem) {
    throw Error(ErrorKind::kSequenceFile, window.path() + ": " + problem + " (offset " +
                                              std::to_string(window.offset()) + ")");
}

const uint8_t* take(FileWindow& window, size_t size, const char* what) {
    const uint8_t* bytes = window.need(size);
    if (bytes == nullptr) fail(window, std::string("the file ends inside the header's ") + what);
    window.advance(size);
    return bytes;
}

void read_magic(FileWindow& window) {
    const uint8_t* magic = window.need(sizeof kMagic);
    if (magic == nullptr || std::memcmp(magic, kMagic, 3) != 0)
        fail(window, "no SequenceFile: it does not begin with \"SEQ\"");
    if (magic[3] != kVersion)
        fail(window, "SequenceFile of version " + std::to_string(magic[3]) +
                         "; only version 6 is supported");
    window.advance(sizeof kMagic);
}

// Hadoop's variable-length integer: one byte from -112 on is the value itself; below it counts the
// big-endian bytes that follow, and below -120 they are the complement.
int64_t take_vint(FileWindow& window, const char* what) {
    const int8_t first = static_cast<int8_t>(*take(window, 1, what));
    if (first >= -112) return first;
    const bool negative = first < -120;
    const size_t count = static_cast<size_t>(negative ? -120 - first : -112 - first);
    const uint8_t* bytes = take(window, count, what);
    uint64_t value = 0;
    for (size_t i = 0; i < count; ++i) value = value << 8 | bytes[i];
    return static_cast<int64_t>(negative ? ~value : value);
}

std::string take_text(FileWindow& window, int64_t bytes_max, const char* what) {
    const int64_t size = take_vint(window, what);
    if (size < 0 || size > bytes_max)
        fail(window, std::string("the header's ") + what + " has a length of " +
                         std::to_string(size) + ", allowed are 0 to " + std::to_string(bytes_max));
    const size_t length = static_cast<size_t>(size);
    return {reinterpret_cast<const char*>(take(window, length, what)), length};
}

bool take_flag(FileWindow& window, const char* what) {
    const uint8_t flag = *take(window, 1, what);
    if (flag > 1)
        fail(window, std::string("the header's ") + what + " is " + std::to_string(flag) +
                         ", neither 0 nor 1");
    return flag == 1;
}

void skip_metadata(FileWindow& window) {
    const uint32_t pairs = load_u32be(take(window, 4, "metadata count"));
    if (pairs > kMetadataPairsMax)
        fail(window, "the header has " + std::to_string(pairs) + " metadata pairs; supported are " +
                         std::to_string(kMetadataPairsMax));
    for (uint32_t i = 0; i < 2 * pairs; ++i) take_text(window, kMetadataTextBytesMax, "metadata");
}

void require_classes(const FileWindow& window, const SequenceHeader& header) {
    if (header.key_class != kBytesWritable && header.key_class != kLongWritable)
        fail(window, "key class \"" + header.key_class + "\" is not supported; supported are " +
                         kBytesWritable + " and " + kLongWritable);
    if (header.value_class != kBytesWritable)
        fail(window, "value class \"" + header.value_class + "\" is not supported; supported is " +
                         kBytesWritable);
}

void append_text(std::vector<uint8_t>& target, std::string_view text) {
    // Class names are far below 113 bytes, so their length is a vint of one byte.
    target.push_back(static_cast<uint8_t>(text.size()));
    target.insert(target.end(), text.begin(), text.end());
}

}  // namespace

SequenceHeader read_sequence_header(FileWindow& window) {
    read_magic(window);
    SequenceHeader header;
    header.key_class = take_text(window, kClassNameBytesMax, "key class");
    header.value_class = take_text(window, kClassNameBytesMax, "value class");
    const bool compressed = take_flag(window, "compression flag");
    const bool block_compressed = take_flag(window, "block compression flag");
    if (compressed)
        fail(window, std::string(block_compressed ? "block" : "record") + "-compressed with " +
                         take_text(window, kClassNameBytesMax, "codec") +
                         "; only uncompressed SequenceFiles are supported");
    if (block_compressed) fail(window, "the header says block-compressed, but not compressed");
    require_classes(window, header);
    skip_metadata(window);
    std::memcpy(header.sync_marker.data(), take(window, kSyncMarkerBytes, "sync marker"),
                kSyncMarkerBytes);
    return header;
}

std::vector<uint8_t> encode_sequence_header(const SequenceHeader& header) {
    std::vector<uint8_t> target(kMagic, kMagic + sizeof kMagic);
    append_text(target, header.key_class);
    append_text(target, header.value_class);
    const uint8_t plain_without_metadata[6] = {};
    target.insert(target.end(), plain_without_metadata, plain_without_metadata + 6);
    target.insert(target.end(), header.sync_marker.begin(), header.sync_marker.end());
    return target;
}

}  // namespace cube
