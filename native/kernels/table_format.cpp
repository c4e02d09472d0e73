#include "kernels/table_format.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "kernels/crc32c.hpp"
#include "kernels/error.hpp"
#include "kernels/index_builder.hpp"

namespace cube {

static_assert(std::endian::native == std::endian::little, "tables are read and written in place");

namespace {

constexpr std::string_view kHeaderMagic = "CUBETABL";
constexpr std::string_view kFooterMagic = "CUBEFOOT";
constexpr uint32_t kFormatVersion = 1;
constexpr uint64_t kAlignment = 64;
// A hostile header must not make the layout's sums wrap.
constexpr uint64_t kIndexEntriesMax = uint64_t{1} << 40;

namespace at {
constexpr size_t kFormatVersion = 8, kHeaderBytes = 12, kTableKind = 16, kValueKind = 20,
                 kShard = 24, kShardNum = 28, kKeyCount = 32, kValueBytes = 40, kBlockBytes = 44,
                 kSeed = 48, kParts = 56, kSlotsPerPart = 60, kBucketsPerPart = 64,
                 kDictNameBytes = 68, kVersionBytes = 72, kBaseVersionBytes = 76, kPilots = 80,
                 kRemap = 96, kRows = 112, kBlockCrcs = 128, kFileBytes = 144, kDeletionCount = 152,
                 kDictName = 160, kVersion = 320, kHeap = 488, kValueBytesMax = 504,
                 kHeaderCrc = 508;
constexpr size_t kFooterFileBytes = 0, kFooterHeaderCrc = 8, kFooterBlockCrcsCrc = 12,
                 kFooterMagic = 52, kFooterCrc = 60;
}  // namespace at

uint64_t align(uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

template <class T>
void store(uint8_t* base, size_t offset, T value) {
    std::memcpy(base + offset, &value, sizeof(T));
}

template <class T>
T load(const uint8_t* base, size_t offset) {
    T value;
    std::memcpy(&value, base + offset, sizeof(T));
    return value;
}

void store_section(uint8_t* base, size_t offset, const Section& section) {
    store(base, offset, section.offset);
    store(base, offset + 8, section.bytes);
}

Section load_section(const uint8_t* base, size_t offset) {
    return {load<uint64_t>(base, offset), load<uint64_t>(base, offset + 8)};
}

[[noreturn]] void fail(const std::string& problem) { throw Error(ErrorKind::kTable, problem); }

void expect(const uint8_t* base, size_t offset, uint32_t expected, const char* field) {
    const uint32_t found = load<uint32_t>(base, offset);
    if (found != expected)
        fail(std::string("header: ") + field + " is " + std::to_string(found) + ", only " +
             std::to_string(expected) + " is read (offset " + std::to_string(offset) + ")");
}

void expect_section(const uint8_t* base, size_t offset, const Section& expected,
                    const char* field) {
    if (load_section(base, offset) != expected)
        fail(std::string("header: section ") + field + " is not where the counts put it (offset " +
             std::to_string(offset) + ")");
}

bool is_zero(std::span<const uint8_t> bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

// A name at the start of a field; what follows it in the field is left to `rest`.
std::string load_name(const uint8_t* base, size_t size_offset, std::span<const uint8_t>& rest,
                      const char* field) {
    const uint32_t size = load<uint32_t>(base, size_offset);
    if (size > rest.size())
        fail(std::string("header: ") + field + " of " + std::to_string(size) +
             " bytes is not of 1 to " + std::to_string(kTableNameBytesMax) + " bytes");
    const auto name = rest.first(size);
    if (std::find(name.begin(), name.end(), 0) != name.end())
        fail(std::string("header: ") + field + " is not of the length that the header says");
    rest = rest.subspan(size);
    return {name.begin(), name.end()};
}

void load_names(const uint8_t* base, TableHeader& header) {
    std::span rest(base + at::kDictName, kTableNameBytesMax);
    header.dict_name = load_name(base, at::kDictNameBytes, rest, "dict_name");
    if (!is_zero(rest)) fail("header: dict_name is not of the length that the header says");
    rest = std::span(base + at::kVersion, kTableNameBytesMax);
    header.version = load_name(base, at::kVersionBytes, rest, "version");
    header.base_version = load_name(base, at::kBaseVersionBytes, rest, "base_version");
    if (!is_zero(rest)) fail("header: version is not of the length that the header says");
}

void check_kind(const uint8_t* header) {
    if (std::memcmp(header, kHeaderMagic.data(), kHeaderMagic.size()) != 0)
        fail("header: not a table, the magic is wrong (offset 0)");
    expect(header, at::kFormatVersion, kFormatVersion, "format_version");
    expect(header, at::kHeaderBytes, kTableHeaderBytes, "header_bytes");
    if (stored_crc32c(header, at::kHeaderCrc) != load<uint32_t>(header, at::kHeaderCrc))
        fail("header: checksum mismatch (offset 508)");
    if (load<uint32_t>(header, at::kTableKind) > kTableKindMax)
        fail("header: table_kind is " + std::to_string(load<uint32_t>(header, at::kTableKind)) +
             ", only 0 and 1 are read (offset 16)");
    if (load<uint32_t>(header, at::kValueKind) > kValueKindMax)
        fail("header: value_kind is " + std::to_string(load<uint32_t>(header, at::kValueKind)) +
             ", only 0 to " + std::to_string(kValueKindMax) + " are read (offset 20)");
    expect(header, at::kBlockBytes, kTableBlockBytes, "block_bytes");
}

}  // namespace

TableLayout::TableLayout(const TableHeader& header) {
    pilots = {kTableHeaderBytes, header.index.bucket_count()};
    remap = {align(pilots.end()), (header.index.slot_count() - header.key_count) * 4};
    deleted = {align(remap.end()), header.is_delta() ? (header.key_count + 7) / 8 : 0};
    rows = {align(deleted.end()), header.key_count * header.row_stride()};
    heap = {align(rows.end()), header.heap_bytes};
    block_crcs.offset = align(heap.end());
    const uint64_t body = block_crcs.offset - kTableHeaderBytes;
    block_crcs.bytes = (body + kTableBlockBytes - 1) / kTableBlockBytes * 4;
    file_bytes = align(block_crcs.end()) + kTableFooterBytes;
}

namespace {

std::string heap_fault(const TableHeader& header) {
    if (!header.is_variable()) return "";
    if (header.value_bytes_max > kValueBytesMax)
        return "value_bytes_max " + std::to_string(header.value_bytes_max) + " is over 65535";
    const uint64_t value_count = header.key_count - header.deletion_count;
    if (header.heap_bytes < value_count || header.heap_bytes > ValuePlace::kOffsetMax ||
        header.heap_bytes > value_count * header.value_bytes_max)
        return "a heap of " + std::to_string(header.heap_bytes) + " bytes does not fit " +
               std::to_string(value_count) + " values of 1 to " +
               std::to_string(header.value_bytes_max) + " bytes";
    return "";
}

}  // namespace

std::string header_fault(const TableHeader& header) {
    const HashIndex& index = header.index;
    const bool empty = header.key_count == 0;
    if (header.dict_name.empty() || header.dict_name.size() > kTableNameBytesMax)
        return "dict_name must have 1 to 160 bytes";
    if (header.version.empty() || header.version.size() > kTableNameBytesMax)
        return "version must have 1 to 160 bytes";
    if (header.is_delta() == header.base_version.empty())
        return "base_version is for a delta, and a delta has one";
    if (header.version.size() + header.base_version.size() > kTableNameBytesMax)
        return "version and base_version must have at most 160 bytes together";
    if (header.shard_num == 0 || header.shard >= header.shard_num)
        return "shard " + std::to_string(header.shard) + " is not below shard_num " +
               std::to_string(header.shard_num);
    if (header.value_bytes == 0 || header.value_bytes > kValueBytesMax)
        return "value_bytes " + std::to_string(header.value_bytes) + " is not 1 to 65535";
    if (header.is_variable() ? header.value_bytes != ValuePlace::kStoredBytes
                             : header.served_bytes() == 0 || header.served_bytes() > kValueBytesMax)
        return "value_bytes " + std::to_string(header.value_bytes) + " do not fit the value_kind";
    if (header.key_count > kKeyCountMax)
        return "key_count " + std::to_string(header.key_count) + " is over " +
               std::to_string(kKeyCountMax);
    if (header.deletion_count > (header.is_delta() ? header.key_count : 0))
        return "deletion_count " + std::to_string(header.deletion_count) +
               " is over what it may be";
    if (const std::string fault = heap_fault(header); !fault.empty()) return fault;
    if (empty != (index.parts == 0) || empty != (index.slots_per_part == 0) ||
        empty != (index.buckets_per_part == 0))
        return "parts, slots_per_part, buckets_per_part and key_count must be zero together";
    if (index.slot_count() < header.key_count || index.slot_count() > kIndexEntriesMax ||
        index.bucket_count() > kIndexEntriesMax)
        return "parts, slots_per_part and buckets_per_part do not fit key_count";
    return "";
}

void encode_header(const TableHeader& header, HeaderBytes target) {
    uint8_t* base = target.data();
    std::fill(target.begin(), target.end(), uint8_t{0});
    std::copy(kHeaderMagic.begin(), kHeaderMagic.end(), base);
    store(base, at::kFormatVersion, kFormatVersion);
    store(base, at::kHeaderBytes, kTableHeaderBytes);
    store(base, at::kTableKind, static_cast<uint32_t>(header.kind));
    store(base, at::kValueKind, static_cast<uint32_t>(header.value_kind));
    store(base, at::kShard, header.shard);
    store(base, at::kShardNum, header.shard_num);
    store(base, at::kKeyCount, header.key_count);
    store(base, at::kValueBytes, header.value_bytes);
    store(base, at::kBlockBytes, kTableBlockBytes);
    store(base, at::kSeed, header.index.seed);
    store(base, at::kParts, header.index.parts);
    store(base, at::kSlotsPerPart, header.index.slots_per_part);
    store(base, at::kBucketsPerPart, header.index.buckets_per_part);
    store(base, at::kDictNameBytes, static_cast<uint32_t>(header.dict_name.size()));
    store(base, at::kVersionBytes, static_cast<uint32_t>(header.version.size()));
    store(base, at::kBaseVersionBytes, static_cast<uint32_t>(header.base_version.size()));
    store(base, at::kDeletionCount, header.deletion_count);
    const TableLayout layout(header);
    store_section(base, at::kPilots, layout.pilots);
    store_section(base, at::kRemap, layout.remap);
    store_section(base, at::kRows, layout.rows);
    store_section(base, at::kBlockCrcs, layout.block_crcs);
    store_section(base, at::kHeap, header.is_variable() ? layout.heap : Section());
    store(base, at::kValueBytesMax, header.value_bytes_max);
    store(base, at::kFileBytes, layout.file_bytes);
    std::copy(header.dict_name.begin(), header.dict_name.end(), base + at::kDictName);
    const auto version_end =
        std::copy(header.version.begin(), header.version.end(), base + at::kVersion);
    std::copy(header.base_version.begin(), header.base_version.end(), version_end);
    store(base, at::kHeaderCrc, stored_crc32c(base, at::kHeaderCrc));
}

TableHeader decode_header(std::span<const uint8_t, kTableHeaderBytes> source, uint64_t file_bytes) {
    const uint8_t* base = source.data();
    check_kind(base);
    TableHeader header;
    header.kind = static_cast<TableKind>(load<uint32_t>(base, at::kTableKind));
    header.deletion_count = load<uint64_t>(base, at::kDeletionCount);
    header.value_kind = static_cast<ValueKind>(load<uint32_t>(base, at::kValueKind));
    header.shard = load<uint32_t>(base, at::kShard);
    header.shard_num = load<uint32_t>(base, at::kShardNum);
    header.key_count = load<uint64_t>(base, at::kKeyCount);
    header.value_bytes = load<uint32_t>(base, at::kValueBytes);
    header.index.seed = load<uint64_t>(base, at::kSeed);
    header.index.parts = load<uint32_t>(base, at::kParts);
    header.index.slots_per_part = load<uint32_t>(base, at::kSlotsPerPart);
    header.index.buckets_per_part = load<uint32_t>(base, at::kBucketsPerPart);
    load_names(base, header);
    header.heap_bytes = load_section(base, at::kHeap).bytes;
    header.value_bytes_max = load<uint32_t>(base, at::kValueBytesMax);
    if (!header.is_variable() && (header.heap_bytes != 0 || header.value_bytes_max != 0))
        fail("header: a heap, although the value_kind has none (offset 488)");
    if (const std::string fault = header_fault(header); !fault.empty()) fail("header: " + fault);

    const TableLayout layout(header);
    expect_section(base, at::kPilots, layout.pilots, "pilots");
    expect_section(base, at::kRemap, layout.remap, "remap");
    expect_section(base, at::kRows, layout.rows, "rows");
    expect_section(base, at::kHeap, header.is_variable() ? layout.heap : Section(), "heap");
    expect_section(base, at::kBlockCrcs, layout.block_crcs, "block_crcs");
    if (load<uint64_t>(base, at::kFileBytes) != layout.file_bytes)
        fail("header: file_bytes does not fit the counts (offset 144)");
    if (file_bytes != layout.file_bytes)
        fail("the file has " + std::to_string(file_bytes) + " bytes, its header says " +
             std::to_string(layout.file_bytes) +
             (file_bytes < layout.file_bytes ? ": truncated" : ""));
    return header;
}

void encode_footer(const TableLayout& layout, uint32_t header_crc, uint32_t block_crcs_crc,
                   FooterBytes target) {
    uint8_t* base = target.data();
    std::fill(target.begin(), target.end(), uint8_t{0});
    store(base, at::kFooterFileBytes, layout.file_bytes);
    store(base, at::kFooterHeaderCrc, header_crc);
    store(base, at::kFooterBlockCrcsCrc, block_crcs_crc);
    std::copy(kFooterMagic.begin(), kFooterMagic.end(), base + at::kFooterMagic);
    store(base, at::kFooterCrc, stored_crc32c(base, at::kFooterCrc));
}

uint32_t decode_footer(std::span<const uint8_t, kTableFooterBytes> source,
                       const TableLayout& layout, uint32_t header_crc) {
    const uint8_t* base = source.data();
    const std::string where =
        " (offset " + std::to_string(layout.file_bytes - kTableFooterBytes) + ")";
    if (std::memcmp(base + at::kFooterMagic, kFooterMagic.data(), kFooterMagic.size()) != 0)
        fail("footer: the magic is wrong" + where);
    if (stored_crc32c(base, at::kFooterCrc) != load<uint32_t>(base, at::kFooterCrc))
        fail("footer: checksum mismatch" + where);
    if (load<uint64_t>(base, at::kFooterFileBytes) != layout.file_bytes ||
        load<uint32_t>(base, at::kFooterHeaderCrc) != header_crc)
        fail("footer: belongs to another header" + where);
    return load<uint32_t>(base, at::kFooterBlockCrcsCrc);
}

uint32_t stored_header_crc(std::span<const uint8_t, kTableHeaderBytes> source) {
    return load<uint32_t>(source.data(), at::kHeaderCrc);
}

}  // namespace cube
