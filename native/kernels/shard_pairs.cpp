#include "kernels/shard_pairs.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

#include "kernels/error.hpp"
#include "kernels/file.hpp"
#include "kernels/hash_index.hpp"

namespace cube {

namespace {

constexpr char kKeys[] = "keys";
constexpr char kValues[] = "values";
constexpr char kWidths[] = "widths";
// A shard is cut into 256 ranges of the hash, or fewer when there are many shards.
constexpr unsigned kRangeBitsMax = 8;
constexpr uint32_t kBinsMax = uint32_t{1} << 13;

unsigned range_bits(uint32_t shard_num) {
    unsigned bits = kRangeBitsMax;
    while (bits > 0 && shard_num > kBinsMax >> bits) --bits;
    return bits;
}

uint8_t* append(uint8_t* target, const void* source, size_t size) {
    if (size > 0) std::memcpy(target, source, size);
    return target + size;
}

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
    : directory_(std::move(directory)),
      value_bytes_(value_bytes),
      shards_(shard_num),
      range_bits_(range_bits(shard_num)) {}

// Sorts the numbers of the keys by shard and, inside a shard, by range of the hash; those of a
// range stay in their order.
void ShardPairs::sort(std::span<const uint64_t> keys) {
    const uint64_t seed = HashIndex::seed_of(0);
    bin_of_key_.resize(keys.size());
    sorted_.resize(keys.size());
    bin_ends_.assign(shards_.size() << range_bits_, 0);
    for (size_t i = 0; i < keys.size(); ++i) {
        const uint64_t shard = keys[i] % shards_.size();
        const uint64_t range = HashIndex::hash(keys[i], seed) >> 32 >> (32 - range_bits_);
        bin_of_key_[i] = static_cast<uint32_t>(shard << range_bits_ | range);
        ++bin_ends_[bin_of_key_[i]];
    }
    std::exclusive_scan(bin_ends_.begin(), bin_ends_.end(), bin_ends_.begin(), uint32_t{0});
    for (size_t i = 0; i < keys.size(); ++i)
        sorted_[bin_ends_[bin_of_key_[i]]++] = static_cast<uint32_t>(i);
}

template <class AppendValues>
void ShardPairs::add_sorted(std::span<const uint64_t> keys, AppendValues&& append_values) {
    sort(keys);
    size_t begin = 0;
    for (size_t shard = 0; shard < shards_.size(); ++shard) {
        const size_t end = bin_ends_[((shard + 1) << range_bits_) - 1];
        if (begin == end) continue;
        const auto own = std::span(sorted_).subspan(begin, end - begin);
        PairColumns& target = shards_[shard].kept;
        const uint64_t bytes_before = target.bytes();
        uint8_t* at = target.keys.extend(own.size() * sizeof(uint64_t));
        for (const uint32_t i : own) at = append(at, &keys[i], sizeof keys[i]);
        append_values(target, own);
        kept_bytes_ += target.bytes() - bytes_before;
        begin = end;
    }
}

void ShardPairs::add(std::span<const uint64_t> keys, const uint8_t* rows) {
    const std::lock_guard lock(mutex_);
    const size_t width = value_bytes_;
    add_sorted(keys, [&](PairColumns& target, std::span<const uint32_t> own) {
        uint8_t* at = target.values.extend(own.size() * width);
        for (const uint32_t i : own) at = append(at, rows + i * width, width);
    });
}

void ShardPairs::add(std::span<const uint64_t> keys, const uint8_t* values,
                     std::span<const int64_t> offsets) {
    const std::lock_guard lock(mutex_);
    const auto width_of = [&](uint32_t i) {
        return static_cast<size_t>(offsets[i + 1] - offsets[i]);
    };
    add_sorted(keys, [&](PairColumns& target, std::span<const uint32_t> own) {
        size_t bytes = 0;
        for (const uint32_t i : own) bytes += width_of(i);
        uint8_t* at = target.values.extend(bytes);
        uint8_t* width_at = target.widths.extend(own.size() * sizeof(uint16_t));
        for (const uint32_t i : own) {
            const uint16_t width = static_cast<uint16_t>(width_of(i));
            width_at = append(width_at, &width, sizeof width);
            at = append(at, values + offsets[i], width);
        }
    });
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
