#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/hash_index.hpp"
#include "kernels/value_kind.hpp"

namespace cube {

// The layout of docs/table_format.md.
inline constexpr uint32_t kTableHeaderBytes = 512;
inline constexpr uint32_t kTableFooterBytes = 64;
inline constexpr uint32_t kTableBlockBytes = uint32_t{1} << 20;
inline constexpr uint32_t kTableNameBytesMax = 160;
inline constexpr uint32_t kValueBytesMax = 65535;

struct Section {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    uint64_t end() const { return offset + bytes; }
    bool operator==(const Section&) const = default;
};

// A whole table answers by itself; a delta holds what changes in its base.
enum class TableKind : uint32_t { kWhole = 0, kDelta = 1 };
inline constexpr uint32_t kTableKindMax = 1;

struct TableHeader {
    TableKind kind = TableKind::kWhole;
    std::string dict_name;
    std::string version;
    std::string base_version;     // of a delta
    uint64_t deletion_count = 0;  // rows of a delta whose keys it deletes
    uint32_t shard = 0;
    uint32_t shard_num = 1;
    uint64_t key_count = 0;
    ValueKind value_kind = ValueKind::kBytes;
    uint32_t value_bytes = 1;  // as stored in a row
    HashIndex index;
    // With values of variable width only.
    uint64_t heap_bytes = 0;
    uint32_t value_bytes_max = 0;

    bool is_variable() const { return value_kind == ValueKind::kVariable; }
    bool is_delta() const { return kind == TableKind::kDelta; }
    uint64_t row_stride() const { return 8 + uint64_t{value_bytes}; }
    // Of every value; 0 when they are of variable width.
    size_t served_bytes() const { return cube::served_bytes(value_kind, value_bytes); }
    size_t served_bytes_max() const { return is_variable() ? value_bytes_max : served_bytes(); }
};

// Where the counts of a header put its sections.
struct TableLayout {
    Section pilots;
    Section remap;
    Section deleted;  // of a delta, one bit a row
    Section rows;
    Section heap;
    Section block_crcs;
    uint64_t file_bytes = 0;

    explicit TableLayout(const TableHeader& header);
    uint64_t body_bytes() const { return block_crcs.offset - kTableHeaderBytes; }
    // The block CRCs with the padding up to the footer.
    uint64_t block_crcs_padded_bytes() const {
        return file_bytes - kTableFooterBytes - block_crcs.offset;
    }
};

// What is wrong with the counts of a header; empty when they are inside their limits, and then
// TableLayout does not overflow.
std::string header_fault(const TableHeader& header);

using HeaderBytes = std::span<uint8_t, kTableHeaderBytes>;
using FooterBytes = std::span<uint8_t, kTableFooterBytes>;

void encode_header(const TableHeader& header, HeaderBytes target);
void encode_footer(const TableLayout& layout, uint32_t header_crc, uint32_t block_crcs_crc,
                   FooterBytes target);

// Both throw Error(kTable), without the file's name, on anything that encode_* did not write.
TableHeader decode_header(std::span<const uint8_t, kTableHeaderBytes> source, uint64_t file_bytes);
// Returns block_crcs_crc.
uint32_t decode_footer(std::span<const uint8_t, kTableFooterBytes> source,
                       const TableLayout& layout, uint32_t header_crc);

uint32_t stored_header_crc(std::span<const uint8_t, kTableHeaderBytes> source);

}  // namespace cube
