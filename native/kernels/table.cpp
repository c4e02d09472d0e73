#include "kernels/table.hpp"

#include <sys/mman.h>

#include <array>
#include <mutex>
#include <vector>

#include "kernels/crc32c.hpp"
#include "kernels/error.hpp"
#include "kernels/file.hpp"
#include "kernels/threads.hpp"

namespace cube {

namespace {

// 16 MiB of blocks, or the rows of about as many: enough that a thread is not asked for often.
constexpr uint64_t kBlocksPerTurn = 16;
constexpr uint64_t kRowsPerTurn = uint64_t{1} << 18;

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
    in_threads(crcs.size(), kBlocksPerTurn, [&](uint64_t first, uint64_t end) {
        for (uint64_t block = first; block < end; ++block) {
            const uint64_t begin = kTableHeaderBytes + block * kTableBlockBytes;
            const size_t size = static_cast<size_t>(
                std::min<uint64_t>(kTableBlockBytes, layout.block_crcs.offset - begin));
            fill(begin, size);
            if (stored_crc32c(base + begin, size) != crcs[static_cast<size_t>(block)])
                fail("block checksum mismatch (offset " + std::to_string(begin) + ")");
        }
    });
}

Memory load_verified(const File& file, const TableLayout& layout, std::span<const uint32_t> crcs,
                     TablePlace place) {
    const size_t size = static_cast<size_t>(layout.file_bytes);
    if (place == TablePlace::kMapped) {
        Memory memory = Memory::mapped(file, size);
        ::madvise(memory.data(), size, MADV_SEQUENTIAL);
        verify_blocks(memory.data(), layout, crcs, [](uint64_t, size_t) {});
        ::madvise(memory.data(), size, MADV_RANDOM);
        return memory;
    }
    Memory memory = place == TablePlace::kShared ? Memory::shared(size, file.path())
                                                 : Memory::anonymous(size, file.path());
    verify_blocks(memory.data(), layout, crcs, [&](uint64_t begin, size_t bytes) {
        read_exactly(file, begin, {memory.data() + begin, bytes});
    });
    return memory;
}

}  // namespace

Table::Table(const std::string& path, TableHeader header, Memory memory)
    : path_(path), header_(std::move(header)), memory_(std::move(memory)) {
    const TableLayout layout(header_);
    pilots_ = memory_.data() + layout.pilots.offset;
    remap_ = memory_.data() + layout.remap.offset;
    deleted_ = memory_.data() + layout.deleted.offset;
    rows_ = memory_.data() + layout.rows.offset;
    heap_ = memory_.data() + layout.heap.offset;
    stride_ = static_cast<size_t>(header_.row_stride());
    row_expander_ = cube::row_expander(header_.value_kind, cpu_level());
}

namespace {

// What `read` throws about a table's content names its file.
template <class Read>
std::shared_ptr<const Table> naming(const std::string& path, Read&& read) {
    try {
        return read();
    } catch (const OsError&) {
        throw;
    } catch (const Error& error) {
        throw Error(error.kind(), path + ": " + error.what());
    }
}

uint64_t whole_size(uint64_t file_bytes) {
    if (file_bytes < kTableHeaderBytes + kTableFooterBytes)
        fail("truncated: " + std::to_string(file_bytes) + " bytes are no whole table");
    return file_bytes;
}

}  // namespace

std::shared_ptr<const Table> Table::open(const std::string& path, TablePlace place) {
    return naming(path, [&] {
        const File file = File::open_to_read(path);
        const uint64_t file_bytes = whole_size(file.size());
        std::array<uint8_t, kTableHeaderBytes> header_bytes;
        read_exactly(file, 0, header_bytes);
        TableHeader header = decode_header(header_bytes, file_bytes);
        const TableLayout layout(header);
        const std::vector<uint32_t> crcs =
            read_block_crcs(file, layout, stored_header_crc(header_bytes));
        Memory memory = load_verified(file, layout, crcs, place);
        if (place == TablePlace::kShared) {
            std::copy(header_bytes.begin(), header_bytes.end(), memory.data());
            memory.seal();
        }
        std::shared_ptr<const Table> table(new Table(path, std::move(header), std::move(memory)));
        table->verify_index();
        table->verify_deletions();
        return table;
    });
}

std::shared_ptr<const Table> Table::attach(const std::string& path, int descriptor) {
    return naming(path, [&] {
        const uint64_t file_bytes = whole_size(File::size_of(descriptor, path));
        Memory memory = Memory::attached(descriptor, static_cast<size_t>(file_bytes), path);
        TableHeader header = decode_header(
            std::span(memory.data(), kTableHeaderBytes).first<kTableHeaderBytes>(), file_bytes);
        return std::shared_ptr<const Table>(new Table(path, std::move(header), std::move(memory)));
    });
}

// Intact checksums only say that the file is as its writer left it; this says that every lookup
// of it stays inside, and that it finds every row.
void Table::verify_index() const {
    const uint64_t tail = header_.index.slot_count() - header_.key_count;
    for (uint64_t slot = header_.key_count; slot < header_.key_count + tail; ++slot)
        if (row_of_slot(slot) >= header_.key_count)
            fail("remap names row " + std::to_string(row_of_slot(slot)) + " of " +
                 std::to_string(header_.key_count));
    in_threads(header_.key_count, kRowsPerTurn,
               [&](uint64_t first, uint64_t end) { verify_rows(first, end); });
    if (is_variable()) verify_heap();
}

void Table::verify_deletions() const {
    if (!header_.is_delta()) return;
    const std::span bits(deleted_, static_cast<size_t>((row_count() + 7) / 8));
    if (count_bits(bits) != header_.deletion_count)
        fail(std::to_string(count_bits(bits)) + " rows are marked as deleted, the header says " +
             std::to_string(header_.deletion_count));
    if (row_count() % 8 != 0 && bits.back() >> (row_count() % 8) != 0)
        fail("a row from row " + std::to_string(row_count()) + " on is marked as deleted");
}

void Table::verify_rows(uint64_t first, uint64_t end) const {
    std::array<uint64_t, 256> keys;
    for (uint64_t begin = first; begin < end; begin += keys.size()) {
        const size_t count = static_cast<size_t>(std::min<uint64_t>(keys.size(), end - begin));
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

void Table::verify_heap() const {
    std::mutex mutex;
    uint32_t longest = 0;
    in_threads(header_.key_count, kRowsPerTurn, [&](uint64_t first, uint64_t end) {
        const uint32_t longest_here = verify_places(first, end);
        const std::lock_guard lock(mutex);
        longest = std::max(longest, longest_here);
    });
    if (longest != header_.value_bytes_max)
        fail("header: value_bytes_max is " + std::to_string(header_.value_bytes_max) +
             ", but the longest value has " + std::to_string(longest) + " bytes");
}

uint32_t Table::verify_places(uint64_t first, uint64_t end) const {
    uint32_t longest = 0;
    uint64_t begin = first == 0 ? 0 : ValuePlace::load(row_value(first - 1)).end();
    for (uint64_t row = first; row < end; ++row) {
        const ValuePlace place = ValuePlace::load(row_value(row));
        const bool is_last = row + 1 == header_.key_count;
        if (place.offset != begin || (place.bytes == 0) != is_deleted(row) ||
            (is_last ? place.end() != header_.heap_bytes : place.end() > header_.heap_bytes))
            fail("key " + std::to_string(row_key(row)) + ": its value, " +
                 std::to_string(place.bytes) + " bytes at " + std::to_string(place.offset) +
                 " of the heap, is not where the one before ends, or not inside");
        begin = place.end();
        longest = std::max(longest, place.bytes);
    }
    return longest;
}

}  // namespace cube
