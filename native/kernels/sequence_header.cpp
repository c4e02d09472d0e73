#include "kernels/sequence_header.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "kernels/big_endian.hpp"
#include "kernels/error.hpp"
#include "kernels/hadoop_vint.hpp"
#include "kernels/sequence_pair.hpp"

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

int64_t take_vint(FileWindow& window, const char* what) {
    const uint8_t* first = window.need(1);
    return load_hadoop_vint(take(window, first == nullptr ? 1 : hadoop_vint_bytes(*first), what));
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

SequenceCompression take_compression(FileWindow& window) {
    const bool compressed = take_flag(window, "compression flag");
    const bool block_compressed = take_flag(window, "block compression flag");
    if (block_compressed && !compressed)
        fail(window, "the header says block-compressed, but not compressed");
    if (!compressed) return SequenceCompression::kNone;
    return block_compressed ? SequenceCompression::kBlock : SequenceCompression::kRecord;
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
    header.compression = take_compression(window);
    if (header.compression != SequenceCompression::kNone)
        header.codec = take_text(window, kClassNameBytesMax, "codec");
    if (const std::string fault = class_fault(header.key_class, header.value_class); !fault.empty())
        fail(window, fault);
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
