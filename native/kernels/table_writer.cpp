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

void check_keys(const TableInput& input) {
    const auto stray = std::find_if(input.keys.begin(), input.keys.end(), [&](uint64_t key) {
        return key % input.shard_num != input.shard;
    });
    if (stray != input.keys.end())
        throw std::invalid_argument(
            "keys[" + std::to_string(stray - input.keys.begin()) + "] = " + std::to_string(*stray) +
            " is of shard " + std::to_string(*stray % input.shard_num) + ", not of shard " +
            std::to_string(input.shard) + " of " + std::to_string(input.shard_num));
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

void write_rows(BlockWriter& writer, const TableInput& input, std::span<const uint32_t> inputs) {
    const size_t width = input.value_bytes;
    for (size_t row = 0; row < inputs.size(); ++row) {
        if (row + kPrefetchRows < inputs.size()) {
            const size_t ahead = inputs[row + kPrefetchRows];
            __builtin_prefetch(&input.keys[ahead]);
            __builtin_prefetch(input.values + ahead * width);
            __builtin_prefetch(input.values + (ahead + 1) * width - 1);
        }
        const size_t source = inputs[row];
        writer.append(&input.keys[source], 8);
        writer.append(input.values + source * width, width);
    }
}

void write_places(BlockWriter& writer, const TableInput& input, std::span<const uint32_t> inputs) {
    ValuePlace place;
    uint8_t stored[ValuePlace::kStoredBytes];
    for (size_t row = 0; row < inputs.size(); ++row) {
        if (row + kPrefetchRows < inputs.size()) {
            const size_t ahead = inputs[row + kPrefetchRows];
            __builtin_prefetch(&input.keys[ahead]);
            __builtin_prefetch(&input.offsets[ahead]);
        }
        const size_t source = inputs[row];
        place = {place.end(), static_cast<uint32_t>(input.value_at(source).size())};
        place.store(stored);
        writer.append(&input.keys[source], 8);
        writer.append(stored, sizeof stored);
    }
}

void write_heap(BlockWriter& writer, const TableInput& input, std::span<const uint32_t> inputs) {
    for (size_t row = 0; row < inputs.size(); ++row) {
        if (row + 2 * kPrefetchRows < inputs.size())
            __builtin_prefetch(&input.offsets[inputs[row + 2 * kPrefetchRows]]);
        if (row + kPrefetchRows < inputs.size())
            __builtin_prefetch(input.values + input.offsets[inputs[row + kPrefetchRows]]);
        const std::span<const uint8_t> value = input.value_at(inputs[row]);
        writer.append(value.data(), value.size());
    }
}

void write_body(BlockWriter& writer, const TableLayout& layout, const TableInput& input,
                const BuiltIndex& built) {
    writer.append(built.pilots.data(), built.pilots.size());
    writer.pad_to(layout.remap.offset);
    writer.append(built.remap.data(), built.remap.size() * sizeof(uint32_t));
    writer.pad_to(layout.rows.offset);
    if (input.value_kind == ValueKind::kVariable) {
        write_places(writer, input, built.input_of_row);
        writer.pad_to(layout.heap.offset);
        write_heap(writer, input, built.input_of_row);
    } else {
        write_rows(writer, input, built.input_of_row);
    }
    writer.pad_to(layout.block_crcs.offset);
    writer.end_block();
}

TableHeader header_of(const TableInput& input) {
    TableHeader header;
    header.dict_name = input.dict_name;
    header.version = input.version;
    header.shard = input.shard;
    header.shard_num = input.shard_num;
    header.value_kind = input.value_kind;
    header.value_bytes =
        input.value_kind == ValueKind::kVariable
            ? uint32_t{ValuePlace::kStoredBytes}
            : static_cast<uint32_t>(std::min<size_t>(input.value_bytes, UINT32_MAX));
    return header;
}

void measure_heap(TableHeader& header, const TableInput& input, const BuiltIndex& built) {
    for (const uint32_t source : built.input_of_row) {
        const uint32_t bytes = static_cast<uint32_t>(input.value_at(source).size());
        header.heap_bytes += bytes;
        header.value_bytes_max = std::max(header.value_bytes_max, bytes);
    }
}

}  // namespace

TableReport write_table(const std::string& path, const TableInput& input) {
    TableHeader header = header_of(input);
    if (const std::string fault = header_fault(header); !fault.empty())
        throw std::invalid_argument(fault);
    check_keys(input);
    if (header.is_variable()) check_lengths(input);
    const BuiltIndex built = build_index(input.keys);
    header.key_count = built.input_of_row.size();
    header.index = built.index;
    if (header.is_variable()) measure_heap(header, input, built);
    if (const std::string fault = header_fault(header); !fault.empty())
        throw std::invalid_argument(fault);

    const TableLayout layout(header);
    std::array<uint8_t, kTableHeaderBytes> header_bytes;
    encode_header(header, header_bytes);
    ReplacementFile file(path);
    BlockWriter writer(file);
    writer.write_plain(header_bytes);
    write_body(writer, layout, input, built);
    const std::vector<uint8_t> crcs =
        writer.block_crcs(static_cast<size_t>(layout.block_crcs_padded_bytes()));
    writer.write_plain(crcs);
    std::array<uint8_t, kTableFooterBytes> footer_bytes;
    encode_footer(layout, stored_header_crc(header_bytes), stored_crc32c(crcs.data(), crcs.size()),
                  footer_bytes);
    writer.write_plain(footer_bytes);
    file.commit();

    TableReport report{header.key_count, built.duplicate_count, layout.file_bytes, 0,
                       writer.file_crc()};
    const uint64_t payload_bytes =
        header.is_variable() ? header.heap_bytes : header.key_count * input.value_bytes;
    if (header.key_count > 0)
        report.overhead_bytes_per_key = static_cast<double>(layout.file_bytes - payload_bytes) /
                                        static_cast<double>(header.key_count);
    return report;
}

}  // namespace cube
