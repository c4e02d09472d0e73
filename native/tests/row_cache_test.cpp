#include "kernels/row_cache.hpp"

#include "kernels/seek_plan.hpp"
#include "tests/check.hpp"

namespace cube::tests {

TEST(a_cache_answers_what_was_put_or_nothing) {
    Random random(96);
    for (const size_t capacity_bytes : {size_t{0}, size_t{3000}, size_t{200000}}) {
        constexpr size_t kDim = 3;
        RowCache cache(capacity_bytes, kDim);
        for (int round = 0; round < 200; ++round) {
            const size_t count = random.below(60);
            std::vector<uint64_t> keys(count);
            std::vector<float> rows(count * kDim, -1.0F);
            std::vector<int32_t> status(count, 99);
            for (uint64_t& key : keys) key = random.below(2000);
            size_t unknown_num = 0;
            for (const uint32_t place : cache.get(keys, rows.data(), status.data())) {
                CHECK(place < count && status[place] == 99);
                ++unknown_num;
            }
            size_t known_num = 0;
            for (size_t i = 0; i < count; ++i) {
                if (status[i] == 99) continue;
                ++known_num;
                const bool is_missing = keys[i] % 5 == 0;
                CHECK(status[i] == (is_missing ? kStatusMissing : kStatusFound));
                CHECK(rows[i * kDim + 2] == (is_missing ? 0.0F : static_cast<float>(keys[i])));
            }
            CHECK(known_num + unknown_num == count);
            for (size_t i = 0; i < count; ++i) {
                status[i] = keys[i] % 5 == 0 ? kStatusMissing : kStatusFound;
                std::fill_n(rows.data() + i * kDim, kDim, static_cast<float>(keys[i]));
            }
            cache.put(keys, rows.data(), status.data());
            CHECK(cache.size() <= cache.capacity());
        }
        for (const uint64_t key : cache.hot_keys(cache.capacity())) CHECK(key % 5 != 0);
    }
}

}  // namespace cube::tests
