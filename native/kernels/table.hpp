#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "kernels/memory.hpp"
#include "kernels/table_format.hpp"

namespace cube {

// Where a table is held: in memory of this process, in memory that others can attach to, or in its
// mapped file.
enum class TablePlace { kPrivate, kShared, kMapped };

// An immutable shard table; all of it was verified by `open`, so lookups check nothing.
class Table {
  public:
    // Throws Error(kTable) with the path for anything but an intact table, OsError when the file
    // cannot be read.
    static std::shared_ptr<const Table> open(const std::string& path, TablePlace place);
    // A table that another process has opened as kShared or kMapped, by its descriptor. What that
    // process verified is not verified again.
    static std::shared_ptr<const Table> attach(const std::string& path, int descriptor);

    const std::string& path() const { return path_; }
    const TableHeader& header() const { return header_; }
    uint64_t key_count() const { return header_.key_count; }
    // Of a value as it is served, which may be stored in fewer; 0 when they are of variable width.
    size_t value_bytes() const { return header_.served_bytes(); }
    size_t value_bytes_max() const { return header_.served_bytes_max(); }
    bool is_variable() const { return header_.is_variable(); }
    size_t file_bytes() const { return memory_.size(); }
    size_t memory_bytes() const { return memory_.size(); }
    // What another process can attach to; -1 when the table is in memory of this one.
    int descriptor() const { return memory_.descriptor(); }

    uint64_t row_key(uint64_t row) const {
        uint64_t key;
        std::memcpy(&key, row_at(row), 8);
        return key;
    }
    // The value as stored.
    const uint8_t* row_value(uint64_t row) const { return row_at(row) + 8; }
    // Bytes that are served for a value as stored.
    size_t served_size(const uint8_t* stored) const {
        return is_variable() ? ValuePlace::load(stored).bytes : value_bytes();
    }
    // Writes them.
    void serve_value(const uint8_t* stored, uint8_t* target) const;
    // Of a table of variable width: the value whose place is stored.
    std::span<const uint8_t> heap_value(const uint8_t* stored) const {
        const ValuePlace place = ValuePlace::load(stored);
        return {heap_ + place.offset, place.bytes};
    }

    // Calls visit(i, value) for every key in order; value, as stored, is nullptr when the key is
    // missing.
    template <class Visit>
    void find_each(std::span<const uint64_t> keys, Visit&& visit) const;

  private:
    // Keys on their way through the lookup: enough of them to hide the latency of memory, few
    // enough to stay in the first cache.
    static constexpr size_t kBatchKeys = 32;
    struct Batch {
        uint64_t hashes[kBatchKeys];
        const uint8_t* places[kBatchKeys];  // of the pilot, then of the row
    };

    Table(const std::string& path, TableHeader header, Memory memory);
    void verify_index() const;
    void verify_rows(uint64_t first, uint64_t end) const;
    void verify_heap() const;
    // The longest value of those rows.
    uint32_t verify_places(uint64_t first, uint64_t end) const;
    void ask_pilots(std::span<const uint64_t> keys, Batch& batch) const;
    void ask_rows(size_t count, Batch& batch) const;

    const uint8_t* row_at(uint64_t row) const { return rows_ + row * stride_; }
    uint64_t row_of_slot(uint64_t slot) const {
        if (slot < header_.key_count) [[likely]]
            return slot;
        uint32_t row;
        std::memcpy(&row, remap_ + (slot - header_.key_count) * 4, 4);
        return row;
    }

    std::string path_;
    TableHeader header_;
    Memory memory_;
    const uint8_t* pilots_;
    const uint8_t* remap_;
    const uint8_t* rows_;
    const uint8_t* heap_;
    size_t stride_;
};

inline void Table::serve_value(const uint8_t* stored, uint8_t* target) const {
    switch (header_.value_kind) {
        case ValueKind::kBytes:
            std::memcpy(target, stored, header_.value_bytes);
            return;
        case ValueKind::kFp16:
            expand_fp16(stored, value_bytes() / 4, target);
            return;
        case ValueKind::kInt8:
            expand_int8(stored, value_bytes() / 4, target);
            return;
        case ValueKind::kVariable: {
            const std::span<const uint8_t> value = heap_value(stored);
            std::memcpy(target, value.data(), value.size());
            return;
        }
    }
}

inline void Table::ask_pilots(std::span<const uint64_t> keys, Batch& batch) const {
    const HashIndex index = header_.index;
    for (size_t i = 0; i < keys.size(); ++i) {
        batch.hashes[i] = index.hash(keys[i]);
        batch.places[i] = pilots_ + index.bucket_of(batch.hashes[i]);
        __builtin_prefetch(batch.places[i]);
    }
}

inline void Table::ask_rows(size_t count, Batch& batch) const {
    constexpr size_t kLineBytes = 64;
    constexpr size_t kAskedBytesMax = 256;  // the rest of a wide row comes by the CPU's own
    const HashIndex index = header_.index;
    const size_t last = std::min(stride_, kAskedBytesMax) - 1;
    for (size_t i = 0; i < count; ++i) {
        const uint64_t slot = index.slot_of(batch.hashes[i], *batch.places[i]);
        const uint8_t* row = row_at(row_of_slot(slot));
        for (size_t offset = 0; offset < last; offset += kLineBytes)
            __builtin_prefetch(row + offset);
        __builtin_prefetch(row + last);
        batch.places[i] = row;
    }
}

template <class Visit>
void Table::find_each(std::span<const uint64_t> keys, Visit&& visit) const {
    if (header_.key_count == 0) {
        for (size_t i = 0; i < keys.size(); ++i) visit(i, static_cast<const uint8_t*>(nullptr));
        return;
    }
    // While the rows of one batch are on their way, the pilots of the next are asked for.
    Batch batches[2];
    const auto batch_at = [&](size_t begin) {
        return keys.subspan(begin, std::min(kBatchKeys, keys.size() - begin));
    };
    ask_pilots(batch_at(0), batches[0]);
    for (size_t begin = 0, turn = 0; begin < keys.size(); begin += kBatchKeys, turn ^= 1) {
        const std::span<const uint64_t> batch_keys = batch_at(begin);
        const Batch& batch = batches[turn];
        ask_rows(batch_keys.size(), batches[turn]);
        if (begin + kBatchKeys < keys.size())
            ask_pilots(batch_at(begin + kBatchKeys), batches[turn ^ 1]);
        for (size_t i = 0; i < batch_keys.size(); ++i) {
            uint64_t found;
            std::memcpy(&found, batch.places[i], 8);
            visit(begin + i, found == batch_keys[i] ? batch.places[i] + 8 : nullptr);
        }
    }
}

}  // namespace cube
