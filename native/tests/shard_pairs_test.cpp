#include "kernels/shard_pairs.hpp"

#include <cstring>
#include <vector>

#include "kernels/hash_index.hpp"
#include "tests/check.hpp"

namespace cube::tests {

namespace {

uint64_t key_of(const PairColumns& pairs, size_t at) {
    uint64_t key;
    std::memcpy(&key, pairs.keys.data() + 8 * at, sizeof key);
    return key;
}

}  // namespace

TEST(growing_memory_keeps_what_was_written) {
    GrowingMemory memory;
    std::vector<uint8_t> expected;
    Random random(11);
    // Past the size from which it is mapped, by small and large steps.
    while (expected.size() < (size_t{40} << 20)) {
        const std::vector<uint8_t> bytes = random.bytes(random.below(1 + expected.size() / 2) + 9);
        std::memcpy(memory.extend(bytes.size()), bytes.data(), bytes.size());
        expected.insert(expected.end(), bytes.begin(), bytes.end());
    }
    CHECK(memory.size() == expected.size());
    CHECK(std::memcmp(memory.data(), expected.data(), expected.size()) == 0);
    GrowingMemory moved = std::move(memory);
    CHECK(moved.size() == expected.size());
    moved.clear();
    CHECK(moved.size() == 0);
    *moved.extend(1) = 7;
    CHECK(moved.data()[0] == 7);
}

TEST(shard_pairs_come_back_from_memory_and_files) {
    const TemporaryDirectory directory;
    ShardPairs pairs(directory.file(""), 3, 2);
    std::vector<uint64_t> keys(3000);
    std::vector<uint8_t> rows(2 * keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
        keys[i] = i;
        rows[2 * i] = static_cast<uint8_t>(i);
    }
    for (uint8_t round = 0; round < 3; ++round) {
        for (size_t i = 0; i < keys.size(); ++i) rows[2 * i + 1] = round;
        pairs.add(keys, rows.data());
        if (round == 0) pairs.keep_in_memory(1000);
    }
    CHECK(pairs.largest()[0].count == 3000);
    for (uint32_t shard = 0; shard < 3; ++shard) {
        const PairColumns taken = pairs.take(shard);
        CHECK(taken.keys.size() == 8 * 3000 && taken.values.size() == 2 * 3000);
        std::vector<uint8_t> rounds(keys.size(), 0);
        for (size_t i = 0; i < 3000; ++i) {
            const uint64_t key = key_of(taken, i);
            CHECK(key < keys.size() && key % 3 == shard);
            CHECK(taken.values.data()[2 * i] == static_cast<uint8_t>(key));
            CHECK(taken.values.data()[2 * i + 1] == rounds[key]++);
        }
    }
    CHECK(pairs.take(0).keys.size() == 0);
}

TEST(shard_pairs_of_a_batch_stand_in_the_order_of_the_hash) {
    const TemporaryDirectory directory;
    for (const uint32_t shard_num : {1u, 5u, 9000u}) {
        ShardPairs pairs(directory.file(""), shard_num, 8);
        std::vector<uint64_t> keys(20000);
        for (size_t i = 0; i < keys.size(); ++i) keys[i] = i;
        pairs.add(keys, reinterpret_cast<const uint8_t*>(keys.data()));
        const PairColumns taken = pairs.take(0);
        const size_t count = taken.keys.size() / 8;
        CHECK(count == (keys.size() + shard_num - 1) / shard_num);
        CHECK(std::memcmp(taken.keys.data(), taken.values.data(), taken.keys.size()) == 0);
        const auto range_of = [&](size_t i) {
            return HashIndex::hash(key_of(taken, i), HashIndex::seed_of(0)) >> 56;
        };
        for (size_t i = 1; i < count && shard_num < 9000; ++i)
            CHECK(range_of(i - 1) <= range_of(i));
    }
}

}  // namespace cube::tests
