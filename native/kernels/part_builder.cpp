#include "kernels/part_builder.hpp"

#include <algorithm>
#include <limits>

namespace cube {

namespace {

constexpr uint32_t kPilots = 256;
constexpr uint64_t kImpossible = std::numeric_limits<uint64_t>::max();
constexpr size_t kRecent = 16;
constexpr uint32_t kNoBucket = std::numeric_limits<uint32_t>::max();

}  // namespace

PartBuilder::PartBuilder(const HashIndex& index)
    : index_(index),
      starts_(size_t{index.buckets_per_part} + 1),
      taken_(index.slots_per_part / 64 + 1),
      owners_(index.slots_per_part),
      pilots_(index.buckets_per_part),
      recent_(kRecent) {}

bool PartBuilder::build(std::span<const HashedKey> items, uint8_t* pilots) {
    if (items.size() > index_.slots_per_part) return false;
    begin(items);
    for (const uint32_t bucket : buckets_by_size())
        if (!place(bucket)) return false;
    std::copy(pilots_.begin(), pilots_.end(), pilots);
    return true;
}

void PartBuilder::begin(std::span<const HashedKey> items) {
    items_ = items;
    std::fill(taken_.begin(), taken_.end(), 0);
    std::fill(pilots_.begin(), pilots_.end(), uint8_t{0});
    std::fill(recent_.begin(), recent_.end(), kNoBucket);
    waiting_ = {};
    random_ = index_.seed;
    evictions_left_ = 1000 + 10 * uint64_t{index_.buckets_per_part};

    std::fill(starts_.begin(), starts_.end(), 0);
    for (const HashedKey& item : items) ++starts_[index_.bucket_in_part(item.hash) + 1];
    for (size_t bucket = 1; bucket < starts_.size(); ++bucket)
        starts_[bucket] += starts_[bucket - 1];
}

std::vector<uint32_t> PartBuilder::buckets_by_size() const {
    uint32_t size_max = 0;
    for (uint32_t bucket = 0; bucket < index_.buckets_per_part; ++bucket)
        size_max = std::max(size_max, size_of(bucket));
    std::vector<uint32_t> at(size_t{size_max} + 2, 0);  // by descending size
    for (uint32_t bucket = 0; bucket < index_.buckets_per_part; ++bucket)
        ++at[size_max - size_of(bucket) + 1];
    for (size_t rank = 1; rank < at.size(); ++rank) at[rank] += at[rank - 1];
    std::vector<uint32_t> buckets(at[size_max]);  // empty buckets need no place
    for (uint32_t bucket = 0; bucket < index_.buckets_per_part; ++bucket)
        if (size_of(bucket) > 0) buckets[at[size_max - size_of(bucket)]++] = bucket;
    return buckets;
}

bool PartBuilder::place(uint32_t first) {
    if (place_free(first)) return true;
    waiting_.push({size_of(first), first});
    while (!waiting_.empty()) {
        const uint32_t bucket = waiting_.top().bucket;
        waiting_.pop();
        if (!place_free(bucket) && !place_evicting(bucket)) return false;
    }
    return true;
}

bool PartBuilder::place_free(uint32_t bucket) {
    const std::span<const HashedKey> items =
        items_.subspan(starts_[bucket], starts_[bucket + 1] - starts_[bucket]);
    // Nearly every pilot fails at one of the first items: most of the work on an index is here.
    const HashIndex index = index_;
    const uint64_t* const taken = taken_.data();
    slots_.resize(items.size());
    uint32_t* const slots = slots_.data();
    for (uint32_t pilot = 0; pilot < kPilots; ++pilot) {
        size_t found = 0;
        for (; found < items.size(); ++found) {
            const uint32_t slot =
                index.slot_in_part(items[found].hash, static_cast<uint8_t>(pilot));
            if (taken[slot / 64] >> (slot % 64) & 1) break;
            slots[found] = slot;
        }
        if (found < items.size() || !are_distinct()) continue;
        settle(bucket, static_cast<uint8_t>(pilot));
        return true;
    }
    return false;
}

// Whether the slots, which are all free, are of different items each.
bool PartBuilder::are_distinct() {
    size_t set = 0;
    while (set < slots_.size() && !taken(slots_[set])) flip(slots_[set++]);
    const bool distinct = set == slots_.size();
    while (set > 0) flip(slots_[--set]);
    return distinct;
}

void PartBuilder::settle(uint32_t bucket, uint8_t pilot) {
    pilots_[bucket] = pilot;
    for (const uint32_t slot : slots_) {
        flip(slot);
        owners_[slot] = bucket;
    }
}

uint64_t PartBuilder::eviction_cost(uint32_t bucket, uint8_t pilot, uint64_t cost_max) {
    slots_.clear();
    uint64_t cost = 0;
    for (uint32_t i = starts_[bucket]; i < starts_[bucket + 1]; ++i) {
        const uint32_t slot = index_.slot_in_part(items_[i].hash, pilot);
        slots_.push_back(slot);
        if (!taken(slot)) continue;
        const uint32_t owner = owners_[slot];
        if (std::find(recent_.begin(), recent_.end(), owner) != recent_.end()) return kImpossible;
        cost += uint64_t{size_of(owner)} * size_of(owner);
        if (cost >= cost_max) return kImpossible;
    }
    std::vector<uint32_t> sorted(slots_);
    std::sort(sorted.begin(), sorted.end());
    return std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end() ? cost : kImpossible;
}

bool PartBuilder::place_evicting(uint32_t bucket) {
    if (evictions_left_-- == 0) return false;
    // Another starting pilot each time, so that two buckets do not evict each other for ever.
    random_ = HashIndex::hash(random_, index_.seed);
    uint64_t cost = kImpossible;
    uint8_t best = 0;
    for (uint32_t i = 0; i < kPilots && cost > 1; ++i) {
        const uint8_t pilot = static_cast<uint8_t>(random_ + i);
        const uint64_t pilot_cost = eviction_cost(bucket, pilot, cost);
        if (pilot_cost >= cost) continue;
        cost = pilot_cost;
        best = pilot;
    }
    if (cost == kImpossible) return false;
    eviction_cost(bucket, best, kImpossible);  // for its slots
    evict_from_slots();
    settle(bucket, best);
    recent_[recent_at_++ % kRecent] = bucket;
    return true;
}

void PartBuilder::evict_from_slots() {
    for (const uint32_t slot : slots_) {
        if (!taken(slot)) continue;
        const uint32_t owner = owners_[slot];
        for (uint32_t i = starts_[owner]; i < starts_[owner + 1]; ++i)
            flip(index_.slot_in_part(items_[i].hash, pilots_[owner]));
        waiting_.push({size_of(owner), owner});
    }
}

}  // namespace cube
