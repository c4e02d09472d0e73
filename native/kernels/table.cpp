#include "kernels/table.hpp"

#include <sys/mman.h>

#include <array>
#include <vector>

#include "kernels/crc32c.hpp"
#include "kernels/error.hpp"
#include "kernels/file.hpp"

namespace cube {

namespace {

[[noreturn]] void fail(const std::string& problem) { throw Error(ErrorKind::kTable, problem); }

void read_exactly(const File& file, uint64_t offset, std::span<uint8_t> target) {
    if (file.read_at(offset, target.data(), target.size()) != target.size())
        fail("truncated while it was read (offset " + std::to_string(offset) + ")");
}

// The CRCs of the body's blocks, themselves verified.
std::vector<uint32_t> read_block_crcs(const File& file, const TableLayout& layout,
                                      uint32_t header_crc) {
    std::array<uint8_t, kTableFooterBytes> footer;
    read_exactly(file, layout.file_bytes - kTableFooterBytes, footer);
    const uint32_t expected = decode_footer(footer, layout, header_crc);
    std::vector<uint8_t> bytes(static_cast<size_t>(layout.block_crcs_padded_bytes()));
    read_exactly(file, layout.block_crcs.offset, bytes);
    if (stored_crc32c(bytes.data(), bytes.size()) != expected)
        fail("block checksums: checksum mismatch (offset " +
             std::to_string(layout.block_crcs.offset) + ")");
    std::vector<uint32_t> crcs(static_cast<size_t>(layout.block_crcs.bytes / 4));
    if (!crcs.empty()) std::memcpy(crcs.data(), bytes.data(), crcs.size() * 4);
    return crcs;
}

// Calls `fill` for every block of the body and compares what it left in `base` with its CRC.
template <class Fill>
void verify_blocks(uint8_t* base, const TableLayout& layout, std::span<const uint32_t> crcs,
                   Fill&& fill) {
    for (size_t block = 0; block < crcs.size(); ++block) {
        const uint64_t begin = kTableHeaderBytes + uint64_t{block} * kTableBlockBytes;
        const size_t size = static_cast<size_t>(
            std::min<uint64_t>(kTableBlockBytes, layout.block_crcs.offset - begin));
        fill(begin, size);
        if (stored_crc32c(base + begin, size) != crcs[block])
            fail("block checksum mismatch (offset " + std::to_string(begin) + ")");
    }
}

Memory load_verified(const File& file, const TableLayout& layout, std::span<const uint32_t> crcs,
                     bool in_memory) {
    const size_t size = static_cast<size_t>(layout.file_bytes);
    if (in_memory) {
        Memory memory = Memory::anonymous(size, file.path());
        verify_blocks(memory.data(), layout, crcs, [&](uint64_t begin, size_t bytes) {
            read_exactly(file, begin, {memory.data() + begin, bytes});
        });
        return memory;
    }
    Memory memory = Memory::mapped(file, size);
    ::madvise(memory.data(), size, MADV_SEQUENTIAL);
    verify_blocks(memory.data(), layout, crcs, [](uint64_t, size_t) {});
    ::madvise(memory.data(), size, MADV_RANDOM);
    return memory;
}

}  // namespace

Table::Table(const std::string& path, TableHeader header, Memory memory)
    : path_(path), header_(std::move(header)), memory_(std::move(memory)) {
    const TableLayout layout(header_);
    pilots_ = memory_.data() + layout.pilots.offset;
    remap_ = memory_.data() + layout.remap.offset;
    rows_ = memory_.data() + layout.rows.offset;
    stride_ = static_cast<size_t>(header_.row_stride());
}

std::shared_ptr<const Table> Table::open(const std::string& path, bool in_memory) {
    try {
        const File file = File::open_to_read(path);
        const uint64_t file_bytes = file.size();
        if (file_bytes < kTableHeaderBytes + kTableFooterBytes)
            fail("truncated: " + std::to_string(file_bytes) + " bytes are no whole table");
        std::array<uint8_t, kTableHeaderBytes> header_bytes;
        read_exactly(file, 0, header_bytes);
        TableHeader header = decode_header(header_bytes, file_bytes);
        const TableLayout layout(header);
        const std::vector<uint32_t> crcs =
            read_block_crcs(file, layout, stored_header_crc(header_bytes));
        Memory memory = load_verified(file, layout, crcs, in_memory);
        std::shared_ptr<const Table> table(new Table(path, std::move(header), std::move(memory)));
        table->verify_index();
        return table;
    } catch (const OsError&) {
        throw;
    } catch (const Error& error) {
        throw Error(error.kind(), path + ": " + error.what());
    }
}

// Intact checksums only say that the file is as its writer left it; this says that every lookup
// of it stays inside, and that it finds every row.
void Table::verify_index() const {
    const uint64_t tail = header_.index.slot_count() - header_.key_count;
    for (uint64_t slot = header_.key_count; slot < header_.key_count + tail; ++slot)
        if (row_of_slot(slot) >= header_.key_count)
            fail("remap names row " + std::to_string(row_of_slot(slot)) + " of " +
                 std::to_string(header_.key_count));
    std::array<uint64_t, 256> keys;
    for (uint64_t begin = 0; begin < header_.key_count; begin += keys.size()) {
        const size_t count =
            static_cast<size_t>(std::min<uint64_t>(keys.size(), header_.key_count - begin));
        for (size_t i = 0; i < count; ++i) keys[i] = row_key(begin + i);
        find_each(std::span(keys).first(count), [&](size_t i, const uint8_t* value) {
            if (value != row_value(begin + i))
                fail("key " + std::to_string(keys[i]) + " is not in the row of its hash");
            if (keys[i] % header_.shard_num != header_.shard)
                fail("key " + std::to_string(keys[i]) + " is not of shard " +
                     std::to_string(header_.shard) + " of " + std::to_string(header_.shard_num));
        });
    }
}

}  // namespace cube
