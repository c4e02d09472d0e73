#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/delta_filter.hpp"
#include "kernels/expand.hpp"
#include "kernels/memory.hpp"
#include "kernels/row_inputs.hpp"
#include "kernels/table_format.hpp"

namespace cube {

// Where a table is held: in memory of this process, in memory that others can attach to, or in its
// mapped file.
enum class TablePlace { kPrivate, kShared, kMapped };

// A row that holds what a table answers for its key, and the slot it was found in.
struct AnsweredRow {
    uint64_t slot;
    const uint8_t* key;

    const uint8_t* stored() const { return key + 8; }
};

// An immutable shard table; all of it was verified by `open`, so lookups check nothing.
class Table {
  public:
    // Throws Error(kTable) with the path for anything but an intact table, OsError when the file
    // cannot be read.
    static std::shared_ptr<const Table> open(const std::string& path, TablePlace place);
    // A table that another process has opened as kShared or kMapped, by its descriptor. What that
    // process verified is not verified again.
    static std::shared_ptr<const Table> attach(const std::string& path, int descriptor);
    // The table that answers from `base` and a delta over it. Throws Error(kTable) for tables that
    // do not belong together.
    static std::shared_ptr<const Table> with_delta(std::shared_ptr<const Table> base,
                                                   std::shared_ptr<const Table> delta);

    const std::string& path() const { return path_; }
    const TableHeader& header() const { return header_; }
    uint64_t key_count() const { return over_ == nullptr ? row_count() : over_->key_count; }
    // Without those of a delta that is laid over.
    uint64_t row_count() const { return header_.key_count; }
    // What `with_delta` was given; nullptr otherwise.
    const std::shared_ptr<const Table>& base() const { return over_ ? over_->base : kNone; }
    const std::shared_ptr<const Table>& delta() const { return over_ ? over_->delta : kNone; }
    // Of a value as it is served, which may be stored in fewer; 0 when they are of variable width.
    size_t value_bytes() const { return header_.served_bytes(); }
    size_t value_bytes_max() const { return header_.served_bytes_max(); }
    bool is_variable() const { return header_.is_variable(); }
    size_t file_bytes() const;
    size_t memory_bytes() const;
    // What another process can attach to; -1 when the table is in memory of this one.
    int descriptor() const { return memory_.descriptor(); }

    uint64_t row_key(uint64_t row) const {
        uint64_t key;
        std::memcpy(&key, row_at(row), 8);
        return key;
    }
    // The value as stored.
    const uint8_t* row_value(uint64_t row) const { return row_at(row) + 8; }
    // Whether a row of this delta only says that its key is deleted.
    bool is_deleted(uint64_t row) const {
        return header_.deletion_count > 0 && is_bit_set(deleted_, row);
    }
    // As `is_deleted`, for the value of one of its rows.
    bool is_deletion(const uint8_t* stored) const {
        return header_.deletion_count > 0 &&
               is_bit_set(deleted_, static_cast<uint64_t>(stored - 8 - rows_) / stride_);
    }
    // The rows as they are stored.
    RowRun run() const;
    // Rows of this table and then of its delta.
    uint64_t slot_count() const;
    // Of the slots from `first` up to `end`, those whose pairs are answered.
    std::vector<AnsweredRow> answered_rows(uint64_t first, uint64_t end) const;
    // Bytes that are served for a value as stored.
    size_t served_size(const uint8_t* stored) const {
        return is_variable() ? ValuePlace::load(stored).bytes : value_bytes();
    }
    // What writes the float32 of a row; nullptr when rows are served as they are stored.
    ExpandRow row_expander() const { return row_expander_; }
    // Writes them.
    void serve_value(const uint8_t* stored, uint8_t* target) const;
    // Of a table of variable width: the value whose place is stored.
    std::span<const uint8_t> heap_value(const uint8_t* stored) const {
        const ValuePlace place = ValuePlace::load(stored);
        const uint8_t* heap =
            over_ != nullptr && over_->delta->holds(stored) ? over_->delta->heap_ : heap_;
        return {heap + place.offset, place.bytes};
    }

    // Calls visit(i, value) for every key in order; value, as stored, is nullptr when the key is
    // missing. A delta by itself also gives the rows that say that a key is deleted.
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
    struct OverBatch;
    // A delta over this table.
    struct Over {
        std::shared_ptr<const Table> base;
        std::shared_ptr<const Table> delta;
        DeltaFilter filter;
        uint64_t key_count;
    };
    static const std::shared_ptr<const Table> kNone;

    Table(const std::string& path, TableHeader header, Memory memory);
    Table(std::shared_ptr<const Table> base, std::shared_ptr<const Table> delta);
    void verify_index() const;
    void verify_deletions() const;
    void verify_rows(uint64_t first, uint64_t end) const;
    void verify_heap() const;
    // The longest value of those rows.
    uint32_t verify_places(uint64_t first, uint64_t end) const;
    void ask_pilots(std::span<const uint64_t> keys, Batch& batch) const;
    void ask_rows(size_t count, Batch& batch) const;
    template <class Visit>
    void find_each_alone(std::span<const uint64_t> keys, Visit&& visit) const;
    template <class Visit>
    void find_each_over(std::span<const uint64_t> keys, Visit&& visit) const;
    void ask_places(std::span<const uint64_t> keys, OverBatch& batch) const;
    void ask_both(OverBatch& batch) const;
    void settle(OverBatch& batch) const;

    bool holds(const uint8_t* stored) const {
        return static_cast<uint64_t>(stored - rows_) < row_count() * stride_;
    }
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
    const uint8_t* deleted_;
    const uint8_t* rows_;
    const uint8_t* heap_;
    size_t stride_;
    ExpandRow row_expander_ = nullptr;
    std::unique_ptr<const Over> over_;
};

inline void Table::serve_value(const uint8_t* stored, uint8_t* target) const {
    switch (header_.value_kind) {
        case ValueKind::kBytes:
            std::memcpy(target, stored, header_.value_bytes);
            return;
        case ValueKind::kFp16:
        case ValueKind::kInt8:
            row_expander_(stored, value_bytes() / 4, target);
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
    if (over_ == nullptr) {
        find_each_alone(keys, visit);
    } else {
        find_each_over(keys, visit);
    }
}

// What `visit` counts and writes to stays in registers when all of it is one function: 3 % of a
// seek.
template <class Visit>
[[gnu::always_inline]] inline void Table::find_each_alone(std::span<const uint64_t> keys,
                                                          Visit&& visit) const {
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

// Keys on their way through base and delta: those that pass the filter are looked up in the delta,
// the others in the base.
struct Table::OverBatch {
    std::span<const uint64_t> keys;
    Batch base;
    const uint64_t* words[kBatchKeys];  // of the filter
    size_t base_count;
    uint8_t base_at[kBatchKeys];  // numbers in `keys`
    Batch delta;
    size_t delta_count;
    uint8_t delta_at[kBatchKeys];
    uint64_t delta_keys[kBatchKeys];
    const uint8_t* values[kBatchKeys];  // at last
};

inline void Table::ask_places(std::span<const uint64_t> keys, OverBatch& batch) const {
    batch.keys = keys;
    ask_pilots(keys, batch.base);
    for (size_t i = 0; i < keys.size(); ++i) {
        batch.words[i] = over_->filter.place_of(batch.base.hashes[i]);
        __builtin_prefetch(batch.words[i]);
    }
}

inline void Table::ask_both(OverBatch& batch) const {
    size_t base_count = 0, delta_count = 0;
    for (size_t i = 0; i < batch.keys.size(); ++i) {
        const uint64_t h = batch.base.hashes[i];
        const bool passes = DeltaFilter::passes(batch.words[i], h);
        batch.base_at[base_count] = static_cast<uint8_t>(i);
        batch.base.hashes[base_count] = h;
        batch.base.places[base_count] = batch.base.places[i];
        base_count += !passes;
        batch.delta_at[delta_count] = static_cast<uint8_t>(i);
        batch.delta_keys[delta_count] = batch.keys[i];
        delta_count += passes;
    }
    batch.base_count = base_count;
    batch.delta_count = delta_count;
    ask_rows(base_count, batch.base);
    over_->delta->ask_pilots(std::span(batch.delta_keys).first(delta_count), batch.delta);
}

// Finds the values of a batch whose rows have been asked for.
inline void Table::settle(OverBatch& batch) const {
    for (size_t i = 0; i < batch.base_count; ++i) {
        const size_t at = batch.base_at[i];
        uint64_t found;
        std::memcpy(&found, batch.base.places[i], 8);
        batch.values[at] = found == batch.keys[at] ? batch.base.places[i] + 8 : nullptr;
    }
    for (size_t i = 0; i < batch.delta_count; ++i) {
        const size_t at = batch.delta_at[i];
        const uint8_t* value = batch.delta.places[i] + 8;
        uint64_t found;
        std::memcpy(&found, value - 8, 8);
        if (found == batch.delta_keys[i]) [[likely]] {
            batch.values[at] = over_->delta->is_deletion(value) ? nullptr : value;
        } else {
            over_->base->find_each_alone(
                batch.keys.subspan(at, 1),
                [&](size_t, const uint8_t* other) { batch.values[at] = other; });
        }
    }
}

template <class Visit>
[[gnu::always_inline]] inline void Table::find_each_over(std::span<const uint64_t> keys,
                                                         Visit&& visit) const {
    if (row_count() == 0) {
        over_->delta->find_each_alone(keys, [&](size_t i, const uint8_t* value) {
            visit(i, value == nullptr || over_->delta->is_deletion(value) ? nullptr : value);
        });
        return;
    }
    // As in `find_each`, with one batch more on the way: the delta's pilots are asked for with the
    // base's rows, so its rows come one step later.
    OverBatch batches[3];
    const size_t steps = (keys.size() + kBatchKeys - 1) / kBatchKeys;
    const auto batch_at = [&](size_t step) {
        const size_t begin = step * kBatchKeys;
        return keys.subspan(begin, std::min(kBatchKeys, keys.size() - begin));
    };
    if (steps > 0) ask_places(batch_at(0), batches[0]);
    for (size_t step = 0; step < steps + 1; ++step) {
        if (step < steps) ask_both(batches[step % 3]);
        if (step + 1 < steps) ask_places(batch_at(step + 1), batches[(step + 1) % 3]);
        if (step < steps) {
            OverBatch& batch = batches[step % 3];
            over_->delta->ask_rows(batch.delta_count, batch.delta);
        }
        if (step == 0) continue;
        OverBatch& batch = batches[(step - 1) % 3];
        settle(batch);
        for (size_t i = 0; i < batch.keys.size(); ++i)
            visit((step - 1) * kBatchKeys + i, batch.values[i]);
    }
}

}  // namespace cube
