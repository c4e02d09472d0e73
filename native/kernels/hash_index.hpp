#pragma once

#include <cstddef>
#include <cstdint>

namespace cube {

// The perfect hash of docs/table_format.md: how a key becomes a bucket and, with that bucket's
// pilot, a slot. Both results are in range for any input.
struct HashIndex {
    uint64_t seed = 0;
    uint32_t parts = 0;
    uint32_t slots_per_part = 0;
    uint32_t buckets_per_part = 0;

    uint64_t slot_count() const { return uint64_t{parts} * slots_per_part; }
    uint64_t bucket_count() const { return uint64_t{parts} * buckets_per_part; }

    static uint64_t hash(uint64_t key, uint64_t seed) {
        uint64_t x = key ^ seed;
        x = (x ^ x >> 32) * 0xbea225f9eb34556d;
        x = (x ^ x >> 29) * 0x9fb21c651e98df25;
        return x ^ x >> 32;
    }
    uint64_t hash(uint64_t key) const { return hash(key, seed); }
    // The seeds that are tried for a table, one after the other; the first nearly always does.
    static uint64_t seed_of(uint64_t attempt) { return hash(attempt + 1, 0); }

    uint32_t part_of(uint64_t h) const { return static_cast<uint32_t>(high(h, parts)); }
    uint32_t bucket_in_part(uint64_t h) const {
        return static_cast<uint32_t>(high(h * parts, buckets_per_part));
    }
    uint64_t bucket_of(uint64_t h) const {
        return high(h, parts) * buckets_per_part + high(h * parts, buckets_per_part);
    }
    uint32_t slot_in_part(uint64_t h, uint8_t pilot) const {
        const uint64_t displaced = (h ^ pilot * 0x9e3779b97f4a7c15) * 0xd6e8feb86659fd93;
        return static_cast<uint32_t>(high(displaced, slots_per_part));
    }
    uint64_t slot_of(uint64_t h, uint8_t pilot) const {
        return high(h, parts) * slots_per_part + slot_in_part(h, pilot);
    }

  private:
    __extension__ using Product = unsigned __int128;
    static uint64_t high(uint64_t a, uint64_t b) {
        return static_cast<uint64_t>(Product{a} * b >> 64);
    }
};

}  // namespace cube
