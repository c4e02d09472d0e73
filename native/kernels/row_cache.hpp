#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace cube {

// Rows of the keys that are asked for most, all of one version of one dict; also which keys have
// none. A key has its place in one line of seven, of which it displaces one that was not asked for
// since the clock's hand came by: what is asked for once goes before what is asked for again.
// Thread-safe.
class RowCache {
  public:
    // As many rows as fit into `capacity_bytes`, but at least one line of them. Throws
    // std::bad_alloc.
    RowCache(size_t capacity_bytes, size_t dim);

    // Writes the rows and status (kStatusFound or kStatusMissing, with a row of zeros) of the keys
    // that it has to `rows` [keys, dim] and `status`; returns the places of all others, ascending.
    std::vector<uint32_t> get(std::span<const uint64_t> keys, float* rows, int32_t* status);
    // Takes the rows of those keys that are kStatusFound, and notes those that are kStatusMissing;
    // `rows` is [keys, dim].
    void put(std::span<const uint64_t> keys, const float* rows, const int32_t* status);
    // The same of the keys at `places` of a batch, of which `get` had none: their rows go to the
    // cache and to their places in `rows` and `status` of the batch. Places are below keys.size().
    void fill(std::span<const uint64_t> keys, std::span<const uint32_t> places, const float* found,
              const int32_t* found_status, float* rows, int32_t* status);
    // The keys that have a row here, at most `count_max`, those asked for again first.
    std::vector<uint64_t> hot_keys(size_t count_max) const;

    size_t dim() const { return dim_; }
    size_t capacity() const { return lines_.size() * kWays; }
    size_t size() const { return size_; }
    size_t bytes() const { return lines_.size() * (sizeof(Line) + row_bytes() * kWays); }
    uint64_t hits() const { return hits_; }
    uint64_t misses() const { return misses_; }

  private:
    static constexpr size_t kWays = 7;

    struct alignas(64) Line {
        uint64_t keys[kWays];
        uint8_t used;        // a bit a way
        uint8_t referenced;  // since the hand came by
        uint8_t absent;      // the key has no row
        uint8_t hand;
    };

    size_t row_bytes() const { return dim_ * sizeof(float); }
    size_t line_of(uint64_t key) const;
    float* row(size_t line, size_t way) const { return rows_.get() + (line * kWays + way) * dim_; }
    static size_t find(const Line& line, uint64_t key);
    size_t take_way(Line& line);
    void put_one(uint64_t key, const float* found, int32_t status);

    const size_t dim_;
    std::vector<Line> lines_;
    std::unique_ptr<float[]> rows_;
    size_t size_ = 0;
    uint64_t hits_ = 0;
    uint64_t misses_ = 0;
    mutable std::mutex mutex_;
};

}  // namespace cube
