#pragma once

#include <cstdint>
#include <queue>
#include <span>
#include <vector>

#include "kernels/hash_index.hpp"
#include "kernels/hash_sort.hpp"

namespace cube {

// Finds the pilots of one part at a time; keeps its memory from part to part.
class PartBuilder {
  public:
    explicit PartBuilder(const HashIndex& index);

    // `items` are the hashes of one part, ascending. Writes buckets_per_part pilots; false when
    // the keys cannot be placed with this seed.
    bool build(std::span<const HashedKey> items, uint8_t* pilots);

  private:
    struct Waiting {
        uint32_t size;
        uint32_t bucket;
        // Largest first; by number, so that the result does not depend on chance.
        bool operator<(const Waiting& other) const {
            return size != other.size ? size < other.size : bucket > other.bucket;
        }
    };

    void begin(std::span<const HashedKey> items);
    std::vector<uint32_t> buckets_by_size() const;
    bool place(uint32_t bucket);
    bool place_free(uint32_t bucket);
    bool place_evicting(uint32_t bucket);
    // Sum of the squares of the sizes of the buckets in the way of `pilot`; kImpossible when the
    // bucket's own keys collide, or one in the way was placed a moment ago.
    uint64_t eviction_cost(uint32_t bucket, uint8_t pilot, uint64_t cost_max);
    void evict_from_slots();
    void settle(uint32_t bucket, uint8_t pilot);
    bool are_distinct();
    uint32_t size_of(uint32_t bucket) const { return starts_[bucket + 1] - starts_[bucket]; }
    bool taken(uint32_t slot) const { return taken_[slot / 64] >> (slot % 64) & 1; }
    void flip(uint32_t slot) { taken_[slot / 64] ^= uint64_t{1} << (slot % 64); }

    HashIndex index_;
    std::span<const HashedKey> items_;
    std::vector<uint32_t> starts_;  // bucket -> its first item
    std::vector<uint64_t> taken_;   // one bit a slot
    std::vector<uint32_t> owners_;  // slot -> bucket, where taken
    std::vector<uint32_t> slots_;   // of the bucket being placed
    std::vector<uint8_t> pilots_;
    std::priority_queue<Waiting> waiting_;
    std::vector<uint32_t> recent_;  // ring of the buckets placed last by eviction
    size_t recent_at_ = 0;
    uint64_t evictions_left_ = 0;
    uint64_t random_ = 0;
};

}  // namespace cube
