#include "kernels/row_cache.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/hash_index.hpp"
#include "kernels/seek_plan.hpp"

namespace cube {

namespace {

constexpr uint64_t kSeed = 0x5851f42d4c957f2d;
// Far enough ahead that a line, and then a row, has come from memory when it is needed.
constexpr size_t kLinesAhead = 16;
constexpr size_t kRowsAhead = 8;

}  // namespace

RowCache::RowCache(size_t capacity_bytes, size_t dim)
    : dim_(dim),
      lines_(std::max<size_t>(1, capacity_bytes / (sizeof(Line) + dim * sizeof(float) * kWays))),
      // Not written before it is used, so that an empty cache takes little memory.
      rows_(std::make_unique_for_overwrite<float[]>(lines_.size() * kWays * dim)) {}

size_t RowCache::line_of(uint64_t key) const {
    __extension__ using Product = unsigned __int128;
    return static_cast<size_t>(Product{HashIndex::hash(key, kSeed)} * lines_.size() >> 64);
}

size_t RowCache::find(const Line& line, uint64_t key) {
    unsigned found = 0;
    for (size_t way = 0; way < kWays; ++way)
        found |= static_cast<unsigned>(line.keys[way] == key) << way;
    return static_cast<size_t>(std::countr_zero(found & line.used | 1U << kWays));
}

size_t RowCache::take_way(Line& line) {
    constexpr uint8_t kAll = (1U << kWays) - 1;
    if (line.used != kAll) {
        ++size_;
        return static_cast<size_t>(std::countr_one(line.used));
    }
    while (true) {
        const size_t way = line.hand;
        line.hand = static_cast<uint8_t>((way + 1) % kWays);
        if ((line.referenced >> way & 1) == 0) return way;
        line.referenced = static_cast<uint8_t>(line.referenced & ~(1U << way));
    }
}

std::vector<uint32_t> RowCache::get(std::span<const uint64_t> keys, float* rows, int32_t* status) {
    std::lock_guard lock(mutex_);
    std::vector<uint32_t> unknown;
    const size_t count = keys.size();
    // The lines of the next keys, and the way of each once it is looked at.
    size_t lines[kLinesAhead];
    size_t ways[kLinesAhead];
    const auto locate = [&](size_t i) {
        const size_t line = line_of(keys[i]);
        lines[i % kLinesAhead] = line;
        __builtin_prefetch(&lines_[line]);
    };
    const auto look = [&](size_t i) {
        const size_t line = lines[i % kLinesAhead];
        const size_t way = ways[i % kLinesAhead] = find(lines_[line], keys[i]);
        if (way == kWays) return;
        const char* at = reinterpret_cast<const char*>(row(line, way));
        for (size_t offset = 0; offset < row_bytes(); offset += 64) __builtin_prefetch(at + offset);
    };
    for (size_t i = 0; i < std::min(count, kLinesAhead); ++i) locate(i);
    for (size_t i = 0; i < std::min(count, kRowsAhead); ++i) look(i);
    for (size_t i = 0; i < count; ++i) {
        const size_t place = lines[i % kLinesAhead];
        const size_t way = ways[i % kLinesAhead];
        if (way == kWays) {
            unknown.push_back(static_cast<uint32_t>(i));
        } else {
            Line& line = lines_[place];
            line.referenced = static_cast<uint8_t>(line.referenced | 1U << way);
            if (line.absent >> way & 1) {
                std::fill_n(rows + i * dim_, dim_, 0.0F);
                status[i] = kStatusMissing;
            } else {
                std::memcpy(rows + i * dim_, row(place, way), row_bytes());
                status[i] = kStatusFound;
            }
        }
        if (i + kRowsAhead < count) look(i + kRowsAhead);
        if (i + kLinesAhead < count) locate(i + kLinesAhead);
    }
    hits_ += count - unknown.size();
    misses_ += unknown.size();
    return unknown;
}

void RowCache::put_one(uint64_t key, const float* found, int32_t status) {
    if (status != kStatusFound && status != kStatusMissing) return;
    const size_t place = line_of(key);
    Line& line = lines_[place];
    if (find(line, key) != kWays) return;
    const size_t way = take_way(line);
    const auto bit = static_cast<uint8_t>(1U << way);
    line.keys[way] = key;
    line.used = static_cast<uint8_t>(line.used | bit);
    line.referenced = static_cast<uint8_t>(line.referenced & ~bit);
    line.absent = static_cast<uint8_t>(line.absent & ~bit);
    if (status == kStatusMissing) {
        line.absent = static_cast<uint8_t>(line.absent | bit);
    } else {
        std::memcpy(row(place, way), found, row_bytes());
    }
}

void RowCache::put(std::span<const uint64_t> keys, const float* rows, const int32_t* status) {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < keys.size(); ++i) {
        if (i + kLinesAhead < keys.size())
            __builtin_prefetch(&lines_[line_of(keys[i + kLinesAhead])], 1);
        put_one(keys[i], rows + i * dim_, status[i]);
    }
}

void RowCache::fill(std::span<const uint64_t> keys, std::span<const uint32_t> places,
                    const float* found, const int32_t* found_status, float* rows, int32_t* status) {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < places.size(); ++i, found += dim_) {
        if (i + kLinesAhead < places.size())
            __builtin_prefetch(&lines_[line_of(keys[places[i + kLinesAhead]])], 1);
        const size_t place = places[i];
        put_one(keys[place], found, found_status[i]);
        std::memcpy(rows + place * dim_, found, row_bytes());
        status[place] = found_status[i];
    }
}

std::vector<uint64_t> RowCache::hot_keys(size_t count_max) const {
    std::lock_guard lock(mutex_);
    std::vector<uint64_t> keys;
    for (const bool referenced : {true, false})
        for (const Line& line : lines_)
            for (size_t way = 0; way < kWays && keys.size() < count_max; ++way) {
                const bool has_row = (line.used & ~line.absent) >> way & 1;
                if (has_row && (line.referenced >> way & 1) == referenced)
                    keys.push_back(line.keys[way]);
            }
    return keys;
}

}  // namespace cube
