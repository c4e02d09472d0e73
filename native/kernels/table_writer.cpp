#include "kernels/table_writer.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels/crc32c.hpp"
#include "kernels/file.hpp"
#include "kernels/index_builder.hpp"
#include "kernels/table_format.hpp"

namespace cube {

namespace {

// Rows are gathered from random places of the input: asked for this many rows ahead.
constexpr size_t kPrefetchRows = 16;

// Writes the file from front to back, with a checksum of every block of the body on the way.
class BlockWriter {
  public:
    explicit BlockWriter(ReplacementFile& file) : file_(file) { block_.reserve(kTableBlockBytes); }

    // Outside the blocks: header, block CRCs, footer.
    void write_plain(std::span<const uint8_t> bytes) {
        file_crc_ = crc32c(file_crc_, bytes.data(), bytes.size());
        file_.write(bytes.data(), bytes.size());
        offset_ += bytes.size();
    }
    void append(const void* source, size_t size) {
        const uint8_t* at = static_cast<const uint8_t*>(source);
        while (size > 0) {
            const size_t count = std::min(size, kTableBlockBytes - block_.size());
            block_.insert(block_.end(), at, at + count);
            at += count;
            size -= count;
            if (block_.size() == kTableBlockBytes) end_block();
        }
    }
    void pad_to(uint64_t offset) {
        static constexpr std::array<uint8_t, 64> kZeros{};
        append(kZeros.data(), static_cast<size_t>(offset - offset_ - block_.size()));
    }
    void end_block() {
        if (block_.empty()) return;
        block_crcs_.push_back(stored_crc32c(block_.data(), block_.size()));
        write_plain(block_);
        block_.clear();
    }
    std::vector<uint8_t> block_crcs(size_t padded_bytes) const {
        std::vector<uint8_t> bytes(padded_bytes, 0);
        if (!block_crcs_.empty())
            std::memcpy(bytes.data(), block_crcs_.data(), block_crcs_.size() * 4);
        return bytes;
    }
    uint32_t file_crc() const { return file_crc_; }

  private:
    ReplacementFile& file_;
    std::vector<uint8_t> block_;
    std::vector<uint32_t> block_crcs_;
    uint64_t offset_ = 0;
    uint32_t file_crc_ = 0;
};

void check_keys(const TableInput& input, std::span<const uint64_t> keys, const char* name) {
    const auto stray = std::find_if(keys.begin(), keys.end(), [&](uint64_t key) {
        return key % input.shard_num != input.shard;
    });
    if (stray != keys.end())
        throw std::invalid_argument(std::string(name) + "[" + std::to_string(stray - keys.begin()) +
                                    "] = " + std::to_string(*stray) + " is of shard " +
                                    std::to_string(*stray % input.shard_num) + ", not of shard " +
                                    std::to_string(input.shard) + " of " +
                                    std::to_string(input.shard_num));
}

void check_lengths(const TableInput& input) {
    for (size_t i = 0; i < input.keys.size(); ++i) {
        const int64_t bytes = input.offsets[i + 1] - input.offsets[i];
        if (bytes < 1 || bytes > int64_t{kValueBytesMax})
            throw std::invalid_argument("keys[" + std::to_string(i) +
                                        "] = " + std::to_string(input.keys[i]) + ": a value of " +
                                        std::to_string(bytes) + " bytes; supported are 1 to " +
                                        std::to_string(kValueBytesMax));
    }
}

void append_rows(BlockWriter& writer, const TableHeader& header, const RowInputs& rows,
                 std::span<const uint32_t> inputs) {
    const std::vector<uint8_t> zeros(header.is_delta() ? header.value_bytes : 0);
    for (size_t row = 0; row < inputs.size(); ++row) {
        if (row + kPrefetchRows < inputs.size()) {
            const size_t ahead = inputs[row + kPrefetchRows];
            __builtin_prefetch(&rows.keys[ahead]);
            if (const auto value = rows.value_of(ahead); !value.empty()) {
                __builtin_prefetch(value.data());
                __builtin_prefetch(&value.back());
            }
        }
        const auto value = rows.value_of(inputs[row]);
        writer.append(&rows.keys[inputs[row]], 8);
        writer.append(value.empty() ? zeros.data() : value.data(), header.value_bytes);
    }
}

// With variable width.
void append_places(BlockWriter& writer, const RowInputs& rows, std::span<const uint32_t> inputs) {
    ValuePlace place;
    uint8_t stored[ValuePlace::kStoredBytes];
    for (size_t row = 0; row < inputs.size(); ++row) {
        if (row + kPrefetchRows < inputs.size()) rows.ask(inputs[row + kPrefetchRows]);
        place = {place.end(), static_cast<uint32_t>(rows.value_of(inputs[row]).size())};
        place.store(stored);
        writer.append(&rows.keys[inputs[row]], 8);
        writer.append(stored, sizeof stored);
    }
}

void append_heap(BlockWriter& writer, const RowInputs& rows, std::span<const uint32_t> inputs) {
    for (size_t row = 0; row < inputs.size(); ++row) {
        if (row + 2 * kPrefetchRows < inputs.size()) rows.ask(inputs[row + 2 * kPrefetchRows]);
        if (row + kPrefetchRows < inputs.size())
            __builtin_prefetch(rows.value_of(inputs[row + kPrefetchRows]).data());
        const std::span<const uint8_t> value = rows.value_of(inputs[row]);
        writer.append(value.data(), value.size());
    }
}

void write_body(BlockWriter& writer, const TableHeader& header, const RowInputs& rows,
                const BuiltIndex& built, std::span<const uint8_t> deleted) {
    const TableLayout layout(header);
    writer.append(built.pilots.data(), built.pilots.size());
    writer.pad_to(layout.remap.offset);
    writer.append(built.remap.data(), built.remap.size() * sizeof(uint32_t));
    writer.pad_to(layout.deleted.offset);
    writer.append(deleted.data(), deleted.size());
    writer.pad_to(layout.rows.offset);
    if (header.is_variable()) {
        append_places(writer, rows, built.input_of_row);
        writer.pad_to(layout.heap.offset);
        append_heap(writer, rows, built.input_of_row);
    } else {
        append_rows(writer, header, rows, built.input_of_row);
    }
    writer.pad_to(layout.block_crcs.offset);
    writer.end_block();
}

// One bit a row of a delta.
std::vector<uint8_t> deleted_bits(const RowInputs& rows, std::span<const uint32_t> inputs) {
    std::vector<uint8_t> bits((inputs.size() + 7) / 8, 0);
    for (size_t row = 0; row < inputs.size(); ++row)
        if (rows.is_deleted(inputs[row]))
            bits[row / 8] = static_cast<uint8_t>(bits[row / 8] | 1u << (row % 8));
    return bits;
}

BuiltIndex index_of(const TableHeader& header, const RowInputs& rows) {
    if (header.is_delta() || !rows.has_deletions()) return build_index(rows.keys);
    return build_index(rows.keys, [&](uint32_t input) { return rows.is_deleted(input); });
}

TableHeader header_of(const TableInput& input) {
    TableHeader header;
    header.dict_name = input.dict_name;
    header.version = input.version;
    if (!input.base_version.empty()) header.kind = TableKind::kDelta;
    header.base_version = input.base_version;
    header.shard = input.shard;
    header.shard_num = input.shard_num;
    header.value_kind = input.value_kind;
    header.value_bytes =
        input.value_kind == ValueKind::kVariable
            ? uint32_t{ValuePlace::kStoredBytes}
            : static_cast<uint32_t>(std::min<size_t>(input.value_bytes, UINT32_MAX));
    return header;
}

void measure_heap(TableHeader& header, const RowInputs& rows, const BuiltIndex& built) {
    for (const uint32_t input : built.input_of_row) {
        const uint32_t bytes = static_cast<uint32_t>(rows.value_of(input).size());
        header.heap_bytes += bytes;
        header.value_bytes_max = std::max(header.value_bytes_max, bytes);
    }
}

RowRun run_of(const TableInput& input) {
    RowRun run{.values = input.values, .stride = input.value_bytes};
    if (input.value_kind == ValueKind::kVariable) run.offsets = input.offsets.data();
    return run;
}

}  // namespace

TableReport write_table(const std::string& path, const TableInput& input) {
    const TableHeader header = header_of(input);
    if (const std::string fault = header_fault(header); !fault.empty())
        throw std::invalid_argument(fault);
    if (!input.deletions.empty() && !header.is_delta())
        throw std::invalid_argument("deletions are for a delta, which has a base_version");
    check_keys(input, input.keys, "keys");
    check_keys(input, input.deletions, "deletions");
    if (header.is_variable()) check_lengths(input);
    RowInputs rows{.keys = input.keys, .runs = {run_of(input)}, .width = input.value_bytes};
    if (input.deletions.empty()) return write_rows(path, header, rows);
    std::vector<uint64_t> keys(input.keys.begin(), input.keys.end());
    keys.insert(keys.end(), input.deletions.begin(), input.deletions.end());
    rows.keys = keys;
    rows.runs.push_back({.first = input.keys.size(), .all_deleted = true});
    return write_rows(path, header, rows);
}

TableReport write_rows(const std::string& path, TableHeader header, const RowInputs& rows) {
    const BuiltIndex built = index_of(header, rows);
    header.key_count = built.input_of_row.size();
    header.index = built.index;
    std::vector<uint8_t> deleted;
    if (header.is_delta()) deleted = deleted_bits(rows, built.input_of_row);
    header.deletion_count = count_bits(deleted);
    if (header.is_variable()) measure_heap(header, rows, built);
    if (const std::string fault = header_fault(header); !fault.empty())
        throw std::invalid_argument(fault);

    const TableLayout layout(header);
    std::array<uint8_t, kTableHeaderBytes> header_bytes;
    encode_header(header, header_bytes);
    ReplacementFile file(path);
    BlockWriter writer(file);
    writer.write_plain(header_bytes);
    write_body(writer, header, rows, built, deleted);
    const std::vector<uint8_t> crcs =
        writer.block_crcs(static_cast<size_t>(layout.block_crcs_padded_bytes()));
    writer.write_plain(crcs);
    std::array<uint8_t, kTableFooterBytes> footer_bytes;
    encode_footer(layout, stored_header_crc(header_bytes), stored_crc32c(crcs.data(), crcs.size()),
                  footer_bytes);
    writer.write_plain(footer_bytes);
    file.commit();

    TableReport report{.key_count = header.key_count,
                       .deletion_count = header.deletion_count,
                       .duplicate_count = built.duplicate_count,
                       .file_bytes = layout.file_bytes,
                       .crc32c = writer.file_crc()};
    const uint64_t payload_bytes =
        header.is_variable() ? header.heap_bytes : header.key_count * header.value_bytes;
    if (header.key_count > 0)
        report.overhead_bytes_per_key = static_cast<double>(layout.file_bytes - payload_bytes) /
                                        static_cast<double>(header.key_count);
    return report;
}

}  // namespace cube
