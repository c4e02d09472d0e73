// A delta over a base: one table to those who look keys up.

#include "kernels/table_delta.hpp"

#include <array>
#include <atomic>
#include <string_view>

#include "kernels/error.hpp"
#include "kernels/threads.hpp"

namespace cube {

namespace {

constexpr uint64_t kRowsPerTurn = uint64_t{1} << 16;
constexpr size_t kKeysPerLookup = 256;

// "<base>" of "<base>_<version>": a table that deltas were folded into is still of their base.
std::string_view base_id(std::string_view version) { return version.substr(0, version.find('_')); }

std::string quoted(const std::string& text) { return "'" + text + "'"; }

[[noreturn]] void refuse(const Table& delta, const Table& first, const char* field,
                         const std::string& found, const std::string& expected) {
    throw Error(ErrorKind::kTable, delta.path() + ": " + field + " is " + found + ", that of " +
                                       first.path() + " " + expected);
}

void expect_same(const Table& delta, const Table& first, const char* field, uint64_t found,
                 uint64_t expected) {
    if (found != expected)
        refuse(delta, first, field, std::to_string(found), std::to_string(expected));
}

// Calls visit(key, row, value) for the rows of `delta`, with what `base` has for the key.
template <class Visit>
void look_up_rows(const Table& delta, const Table& base, uint64_t first, uint64_t end,
                  Visit&& visit) {
    std::array<uint64_t, kKeysPerLookup> keys;
    for (uint64_t begin = first; begin < end; begin += keys.size()) {
        const size_t count = static_cast<size_t>(std::min<uint64_t>(keys.size(), end - begin));
        for (size_t i = 0; i < count; ++i) keys[i] = delta.row_key(begin + i);
        base.find_each(std::span(keys).first(count),
                       [&](size_t i, const uint8_t* value) { visit(keys[i], begin + i, value); });
    }
}

// Keys that are answered when `delta` is laid over `base`.
uint64_t count_keys(const Table& base, const Table& delta) {
    std::atomic<uint64_t> gone{0}, added{0};
    in_threads(delta.row_count(), kRowsPerTurn, [&](uint64_t first, uint64_t end) {
        uint64_t own_gone = 0, own_added = 0;
        look_up_rows(delta, base, first, end, [&](uint64_t, uint64_t row, const uint8_t* value) {
            const bool deleted = delta.is_deleted(row);
            own_gone += deleted && value != nullptr;
            own_added += !deleted && value == nullptr;
        });
        gone += own_gone;
        added += own_added;
    });
    return base.row_count() - gone + added;
}

DeltaFilter filter_of(const HashIndex& index, const Table& delta) {
    DeltaFilter filter(delta.row_count());
    for (uint64_t row = 0; row < delta.row_count(); ++row)
        filter.add(index.hash(delta.row_key(row)));
    return filter;
}

}  // namespace

void require_delta_over(const Table& delta, const Table& first) {
    const TableHeader& header = delta.header();
    const TableHeader& under = first.header();
    if (!header.is_delta())
        throw Error(ErrorKind::kTable, delta.path() + ": is a whole table, where a delta over " +
                                           first.path() + " is expected");
    const std::string& base = under.is_delta() ? under.base_version : under.version;
    if (base_id(header.base_version) != base_id(base))
        refuse(delta, first, "base_version", quoted(header.base_version), quoted(base));
    if (header.dict_name != under.dict_name)
        refuse(delta, first, "dict_name", quoted(header.dict_name), quoted(under.dict_name));
    expect_same(delta, first, "shard_num", header.shard_num, under.shard_num);
    expect_same(delta, first, "shard", header.shard, under.shard);
}

void require_same_values(const Table& delta, const Table& first) {
    if (!has_values(delta)) return;
    const TableHeader& header = delta.header();
    const TableHeader& under = first.header();
    expect_same(delta, first, "value_kind", static_cast<uint32_t>(header.value_kind),
                static_cast<uint32_t>(under.value_kind));
    expect_same(delta, first, "value_bytes", header.value_bytes, under.value_bytes);
}

const std::shared_ptr<const Table> Table::kNone;

Table::Table(std::shared_ptr<const Table> base, std::shared_ptr<const Table> delta)
    : path_(delta->path_),
      header_(base->header_),
      pilots_(base->pilots_),
      remap_(base->remap_),
      deleted_(base->deleted_),
      rows_(base->rows_),
      heap_(base->heap_),
      stride_(base->stride_),
      row_expander_(base->row_expander_) {
    header_.version = delta->header_.version;
    header_.value_bytes_max = std::max(header_.value_bytes_max, delta->header_.value_bytes_max);
    const uint64_t key_count = count_keys(*base, *delta);
    DeltaFilter filter = filter_of(header_.index, *delta);
    over_.reset(new Over{std::move(base), std::move(delta), std::move(filter), key_count});
}

std::shared_ptr<const Table> Table::with_delta(std::shared_ptr<const Table> base,
                                               std::shared_ptr<const Table> delta) {
    if (base->over_ != nullptr || base->header_.is_delta())
        throw Error(
            ErrorKind::kTable,
            base->path_ + ": is no whole table that a delta can be laid over" +
                (base->over_ != nullptr ? ": merge it with the delta that lies over it" : ""));
    if (delta->over_ != nullptr)
        throw Error(ErrorKind::kTable, delta->path_ + ": is laid over its base, not a delta");
    require_delta_over(*delta, *base);
    require_same_values(*delta, *base);
    return std::shared_ptr<const Table>(new Table(std::move(base), std::move(delta)));
}

size_t Table::file_bytes() const {
    return over_ == nullptr ? memory_.size()
                            : over_->base->file_bytes() + over_->delta->file_bytes();
}

size_t Table::memory_bytes() const {
    if (over_ == nullptr) return memory_.size();
    return over_->base->memory_bytes() + over_->delta->memory_bytes() + over_->filter.bytes();
}

uint64_t Table::slot_count() const {
    return row_count() + (over_ == nullptr ? 0 : over_->delta->row_count());
}

RowRun Table::run() const {
    return {.values = rows_ + 8,
            .stride = stride_,
            .deleted = header_.deletion_count > 0 ? deleted_ : nullptr,
            .heap = is_variable() ? heap_ : nullptr};
}

std::vector<AnsweredRow> Table::answered_rows(uint64_t first, uint64_t end) const {
    std::vector<AnsweredRow> rows;
    end = std::min(end, slot_count());
    const uint64_t own_end = std::min(end, row_count());
    if (over_ != nullptr && first < own_end)
        look_up_rows(*over_->base, *over_->delta, first, own_end,
                     [&](uint64_t, uint64_t row, const uint8_t* stored) {
                         if (stored == nullptr) rows.push_back({row, row_at(row)});
                     });
    if (over_ == nullptr)
        for (uint64_t row = first; row < own_end; ++row)
            if (!is_deleted(row)) rows.push_back({row, row_at(row)});
    for (uint64_t slot = std::max(first, row_count()); slot < end; ++slot) {
        const uint64_t row = slot - row_count();
        if (!over_->delta->is_deleted(row)) rows.push_back({slot, over_->delta->row_at(row)});
    }
    return rows;
}

}  // namespace cube
