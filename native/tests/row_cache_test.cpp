#include "kernels/row_cache.hpp"

#include "kernels/seek_plan.hpp"
#include "tests/check.hpp"

namespace cube::tests {

namespace {

// Fills the unknown keys in, and checks that they get to their places.
void fill(RowCache& cache, const std::vector<uint64_t>& keys, const std::vector<uint32_t>& unknown,
          const std::vector<float>& rows, const std::vector<int32_t>& status) {
    std::vector<float> found;
    std::vector<int32_t> found_status;
    for (const uint32_t place : unknown) {
        const float* row = rows.data() + place * cache.dim();
        found.insert(found.end(), row, row + cache.dim());
        found_status.push_back(status[place]);
    }
    std::vector<float> filled(rows.size(), -2.0F);
    std::vector<int32_t> filled_status(status.size(), 98);
    cache.fill(keys, unknown, found.data(), found_status.data(), filled.data(),
               filled_status.data());
    for (size_t i = 0, next = 0; i < keys.size(); ++i) {
        const bool is_filled = next < unknown.size() && unknown[next] == i;
        next += is_filled ? 1 : 0;
        CHECK(filled_status[i] == (is_filled ? status[i] : 98));
        CHECK(filled[i * cache.dim()] == (is_filled ? rows[i * cache.dim()] : -2.0F));
    }
}

}  // namespace

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
            const std::vector<uint32_t> unknown = cache.get(keys, rows.data(), status.data());
            for (const uint32_t place : unknown) CHECK(place < count && status[place] == 99);
            size_t known_num = 0;
            for (size_t i = 0; i < count; ++i) {
                if (status[i] == 99) continue;
                ++known_num;
                const bool is_missing = keys[i] % 5 == 0;
                CHECK(status[i] == (is_missing ? kStatusMissing : kStatusFound));
                CHECK(rows[i * kDim + 2] == (is_missing ? 0.0F : static_cast<float>(keys[i])));
            }
            CHECK(known_num + unknown.size() == count);
            for (size_t i = 0; i < count; ++i) {
                status[i] = keys[i] % 5 == 0 ? kStatusMissing : kStatusFound;
                std::fill_n(rows.data() + i * kDim, kDim, static_cast<float>(keys[i]));
            }
            if (round % 2 == 0) {
                cache.put(keys, rows.data(), status.data());
            } else {
                fill(cache, keys, unknown, rows, status);
            }
            CHECK(cache.size() <= cache.capacity());
        }
        for (const uint64_t key : cache.hot_keys(cache.capacity())) CHECK(key % 5 != 0);
    }
}

}  // namespace cube::tests
