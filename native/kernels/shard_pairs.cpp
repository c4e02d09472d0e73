#include "kernels/shard_pairs.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

#include "kernels/error.hpp"
#include "kernels/file.hpp"

namespace cube {

namespace {

constexpr char kKeys[] = "keys";
constexpr char kValues[] = "values";
constexpr char kWidths[] = "widths";

void append_to_file(const std::string& path, const GrowingMemory& bytes) {
    if (bytes.size() == 0) return;
    File file = File::open_to_append(path);
    WriteBehind behind(0, file.size());
    for (size_t at = 0; at < bytes.size();) {
        const size_t size = std::min(bytes.size() - at, WriteBehind::kStepBytes);
        file.write(bytes.data() + at, size);
        behind.wrote(file, size);
        at += size;
    }
}

// Adds the whole file, which is to have `size` bytes, and removes it.
void take_file(const std::string& path, uint64_t size, GrowingMemory& target) {
    if (size == 0) return;
    const File file = File::open_to_read(path);
    uint8_t* const begin = target.extend(static_cast<size_t>(size));
    if (file.size() != size || file.read_once(0, begin, static_cast<size_t>(size)) != size)
        throw OsError(EIO, path);
    remove_file(path);
}

}  // namespace

ShardPairs::ShardPairs(std::string directory, uint32_t shard_num, size_t value_bytes)
    : directory_(std::move(directory)), value_bytes_(value_bytes), shards_(shard_num) {}

template <class WidthOf, class ValueOf>
void ShardPairs::add_each(std::span<const uint64_t> keys, WidthOf&& width_of, ValueOf&& value_of) {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < keys.size(); ++i) {
        PairColumns& target = shards_[keys[i] % shards_.size()].kept;
        const size_t width = width_of(i);
        std::memcpy(target.keys.extend(sizeof keys[i]), &keys[i], sizeof keys[i]);
        if (width > 0) std::memcpy(target.values.extend(width), value_of(i), width);
        if (value_bytes_ == 0) {
            const uint16_t stored = static_cast<uint16_t>(width);
            std::memcpy(target.widths.extend(sizeof stored), &stored, sizeof stored);
        }
        kept_bytes_ += sizeof keys[i] + width + (value_bytes_ == 0 ? sizeof(uint16_t) : 0);
    }
}

void ShardPairs::add(std::span<const uint64_t> keys, const uint8_t* rows) {
    add_each(
        keys, [&](size_t) { return value_bytes_; },
        [&](size_t i) { return rows + i * value_bytes_; });
}

void ShardPairs::add(std::span<const uint64_t> keys, const uint8_t* values,
                     std::span<const int64_t> offsets) {
    add_each(
        keys, [&](size_t i) { return static_cast<size_t>(offsets[i + 1] - offsets[i]); },
        [&](size_t i) { return values + offsets[i]; });
}

ShardSize ShardPairs::size_of(uint32_t shard) const {
    const Shard& each = shards_[shard];
    const uint64_t kept = each.kept.keys.size() / sizeof(uint64_t);
    return {shard, each.written_count + kept,
            value_bytes_ > 0 ? 0 : each.written_heap_bytes + each.kept.values.size()};
}

std::array<ShardSize, 2> ShardPairs::largest() const {
    const std::lock_guard lock(mutex_);
    std::array<ShardSize, 2> found{size_of(0), size_of(0)};
    for (uint32_t shard = 1; shard < shard_num(); ++shard) {
        const ShardSize size = size_of(shard);
        if (size.count > found[0].count) found[0] = size;
        if (size.heap_bytes > found[1].heap_bytes) found[1] = size;
    }
    return found;
}

void ShardPairs::keep_in_memory(uint64_t bytes_max) {
    const std::lock_guard lock(mutex_);
    if (kept_bytes_ <= bytes_max) return;
    std::vector<uint32_t> by_size(shards_.size());
    std::iota(by_size.begin(), by_size.end(), 0);
    std::sort(by_size.begin(), by_size.end(), [&](uint32_t a, uint32_t b) {
        return shards_[a].kept.bytes() > shards_[b].kept.bytes();
    });
    for (auto each = by_size.begin(); kept_bytes_ > bytes_max / 2; ++each) write_out(*each);
}

void ShardPairs::write_out(uint32_t shard) {
    Shard& each = shards_[shard];
    append_to_file(path_of(shard, kKeys), each.kept.keys);
    append_to_file(path_of(shard, kValues), each.kept.values);
    append_to_file(path_of(shard, kWidths), each.kept.widths);
    each.written_count += each.kept.keys.size() / sizeof(uint64_t);
    each.written_heap_bytes += each.kept.values.size();
    kept_bytes_ -= each.kept.bytes();
    each.kept = {};
}

PairColumns ShardPairs::take(uint32_t shard) {
    const std::lock_guard lock(mutex_);
    Shard each = std::exchange(shards_.at(shard), {});
    kept_bytes_ -= each.kept.bytes();
    if (each.written_count == 0) return std::move(each.kept);
    PairColumns taken;
    const std::array<std::pair<const char*, GrowingMemory PairColumns::*>, 3> columns{
        {{kKeys, &PairColumns::keys},
         {kValues, &PairColumns::values},
         {kWidths, &PairColumns::widths}}};
    const std::array<uint64_t, 3> written{
        each.written_count * sizeof(uint64_t), each.written_heap_bytes,
        value_bytes_ > 0 ? 0 : each.written_count * sizeof(uint16_t)};
    for (size_t i = 0; i < columns.size(); ++i) {
        const auto [name, column] = columns[i];
        GrowingMemory& target = taken.*column;
        GrowingMemory& kept = each.kept.*column;
        take_file(path_of(shard, name), written[i], target);
        if (kept.size() > 0) std::memcpy(target.extend(kept.size()), kept.data(), kept.size());
        kept.clear();
    }
    return taken;
}

std::string ShardPairs::path_of(uint32_t shard, const char* column) const {
    return directory_ + "/" + std::to_string(shard) + "." + column;
}

}  // namespace cube
