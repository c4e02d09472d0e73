#include "kernels/shard_pairs.hpp"

#include <cstring>

#include "tests/check.hpp"

namespace cube::tests {

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
        rows[2 * i + 1] = static_cast<uint8_t>(i >> 8);
    }
    for (int round = 0; round < 3; ++round) {
        pairs.add(keys, rows.data());
        if (round == 0) pairs.keep_in_memory(1000);
    }
    CHECK(pairs.largest()[0].count == 3000);
    for (uint32_t shard = 0; shard < 3; ++shard) {
        const PairColumns taken = pairs.take(shard);
        CHECK(taken.keys.size() == 8 * 3000 && taken.values.size() == 2 * 3000);
        for (size_t i = 0; i < 3000; ++i) {
            uint64_t key;
            std::memcpy(&key, taken.keys.data() + 8 * i, 8);
            CHECK(key == 3 * (i % 1000) + shard);
            CHECK(taken.values.data()[2 * i] == static_cast<uint8_t>(key));
        }
    }
    CHECK(pairs.take(0).keys.size() == 0);
}

}  // namespace cube::tests
