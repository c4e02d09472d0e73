#include "kernels/cpu.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/crc32c.hpp"
#include "kernels/expand.hpp"
#include "tests/check.hpp"

namespace cube::tests {

namespace {

// Every level's bytes for a row, which lies at the very end of its memory.
void expect_same_bytes(ValueKind kind, const std::vector<uint8_t>& row, size_t count) {
    const ExactBytes stored(row);
    std::vector<uint8_t> expected(4 * count);
    row_expander(kind, CpuLevel::kBaseline)(stored.span().data(), count, expected.data());
    for (const CpuLevel level : cpu_levels()) {
        std::vector<uint8_t> found(4 * count + 1, 0xa5);
        row_expander(kind, level)(stored.span().data(), count, found.data());
        CHECK(std::equal(expected.begin(), expected.end(), found.begin()));
        CHECK(found.back() == 0xa5);
    }
}

std::vector<uint8_t> int8_row(float low, float high, size_t count, Random& random) {
    std::vector<uint8_t> row = random.bytes(kInt8HeadBytes + count);
    std::memcpy(row.data(), &low, sizeof low);
    std::memcpy(row.data() + sizeof low, &high, sizeof high);
    return row;
}

}  // namespace

TEST(the_level_is_one_of_the_cpu) {
    CHECK(cpu_levels().front() == CpuLevel::kBaseline);
    CHECK(cpu_level() <= cpu_levels().back());
}

TEST(every_half_is_the_same_float_at_every_level) {
    std::vector<uint8_t> row(2 << 16);
    for (uint32_t half = 0; half <= 0xffff; ++half) {
        const auto stored = static_cast<uint16_t>(half);
        std::memcpy(&row[2 * half], &stored, sizeof stored);
    }
    expect_same_bytes(ValueKind::kFp16, row, size_t{1} << 16);
}

TEST(rows_of_all_lengths_are_the_same_bytes_at_every_level) {
    Random random(71);
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    constexpr float kMax = std::numeric_limits<float>::max();
    for (size_t count = 1; count <= 70; ++count)
        for (int round = 0; round < 20; ++round) {
            expect_same_bytes(ValueKind::kFp16, random.bytes(2 * count), count);
            expect_same_bytes(ValueKind::kInt8, random.bytes(kInt8HeadBytes + count), count);
            const float low = static_cast<float>(random.below(2000)) / 1000 - 1;
            for (const float high : {low, low + 0.7f, kMax, kInfinity, std::nanf("")}) {
                expect_same_bytes(ValueKind::kInt8, int8_row(low, high, count, random), count);
                expect_same_bytes(ValueKind::kInt8, int8_row(-high, low, count, random), count);
            }
        }
}

// Not from CPU to CPU either: this is the same number on x86-64 and aarch64.
TEST(finite_rows_are_the_same_bytes_on_every_cpu) {
    Random random(72);
    uint32_t crc = 0;
    for (size_t count = 1; count <= 500; ++count) {
        const float low = static_cast<float>(random.below(1u << 24)) / 7 - 1e6f;
        const float high = low + static_cast<float>(random.below(1u << 20)) / 3;
        const std::vector<uint8_t> row = int8_row(low, high, count, random);
        std::vector<uint8_t> served(4 * count);
        row_expander(ValueKind::kInt8, cpu_level())(row.data(), count, served.data());
        crc = crc32c(crc, served.data(), served.size());
    }
    CHECK(crc == 0xac892702);
}

TEST(values_that_are_served_as_stored_need_no_expander) {
    for (const CpuLevel level : cpu_levels()) {
        CHECK(row_expander(ValueKind::kBytes, level) == nullptr);
        CHECK(row_expander(ValueKind::kVariable, level) == nullptr);
    }
}

}  // namespace cube::tests
