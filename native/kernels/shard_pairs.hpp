#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "kernels/growing_memory.hpp"

namespace cube {

// The pairs of a shard; those of equal keys in the order they came. Values have one width, or
// `widths` says which, a uint16_t each; they stand end to end.
struct PairColumns {
    GrowingMemory keys;
    GrowingMemory values;
    GrowingMemory widths;

    uint64_t bytes() const { return keys.size() + values.size() + widths.size(); }
};

// How many pairs of a shard there are; `heap_bytes` is 0 where values have one width.
struct ShardSize {
    uint32_t shard = 0;
    uint64_t count = 0;
    uint64_t heap_bytes = 0;
};

// Cuts a pass over its shards and keeps it, in memory as far as it may and in files beyond that.
// What comes at once is put in the order of the hash by which a table places its keys, so that what
// becomes neighbours in a table stands in a few places here. Thread-safe. Throws OsError for the
// files and std::bad_alloc.
class ShardPairs {
  public:
    // `value_bytes` is 0 where values have a width each. Files are made in `directory`, open no
    // longer than a write takes, and removed by whoever made the directory.
    ShardPairs(std::string directory, uint32_t shard_num, size_t value_bytes);

    uint32_t shard_num() const { return static_cast<uint32_t>(shards_.size()); }
    size_t value_bytes() const { return value_bytes_; }
    // Adds rows of `value_bytes`.
    void add(std::span<const uint64_t> keys, const uint8_t* rows);
    // The same for values of a width each, up to 65,535 bytes: key i's is between offsets i, i + 1.
    void add(std::span<const uint64_t> keys, const uint8_t* values,
             std::span<const int64_t> offsets);
    // The shard with the most pairs so far, and the one with the most bytes of values.
    std::array<ShardSize, 2> largest() const;
    // When more than `bytes_max` are in memory, writes out the largest shards until half is free.
    void keep_in_memory(uint64_t bytes_max);
    // Takes all pairs of a shard, once.
    PairColumns take(uint32_t shard);

  private:
    struct Shard {
        PairColumns kept;
        uint64_t written_count = 0;
        uint64_t written_heap_bytes = 0;
    };

    template <class AppendValues>
    void add_sorted(std::span<const uint64_t> keys, AppendValues&& append_values);
    void sort(std::span<const uint64_t> keys);
    ShardSize size_of(uint32_t shard) const;
    void write_out(uint32_t shard);
    std::string path_of(uint32_t shard, const char* column) const;

    mutable std::mutex mutex_;
    std::string directory_;
    size_t value_bytes_;
    std::vector<Shard> shards_;
    unsigned range_bits_;
    // Of the batch that is being added.
    std::vector<uint32_t> bin_of_key_;
    std::vector<uint32_t> bin_ends_;
    std::vector<uint32_t> sorted_;
    uint64_t kept_bytes_ = 0;
};

}  // namespace cube
