#include "kernels/snappy.hpp"

#include "tests/check.hpp"

namespace cube::tests {

namespace {
std::vector<uint8_t> expanded(const std::vector<uint8_t>& compressed) {
    const ExactBytes exact(compressed);
    std::vector<uint8_t> target(snappy_size(exact.span(), 1 << 20));
    snappy_expand(exact.span(), target.data());
    return target;
}
}  // namespace

TEST(snappy_copies_run_on_over_what_they_write) {
    // 9 bytes: literal "ab", then a copy of 7 from 2 back.
    const std::vector<uint8_t> text = expanded({9, 1 << 2, 'a', 'b', 3 << 2 | 1, 2});
    CHECK(std::string(text.begin(), text.end()) == "ababababa");
}

TEST(any_bytes_are_expanded_or_refused) {
    Random random(9);
    for (int round = 0; round < 100000; ++round) {
        std::vector<uint8_t> bytes = random.bytes(random.below(40));
        if (!bytes.empty()) bytes[0] &= 0x7f;
        try {
            expanded(bytes);
        } catch (const Error&) {
        }
    }
}

}  // namespace cube::tests
