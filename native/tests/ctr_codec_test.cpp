#include "kernels/ctr_codec.hpp"

#include <algorithm>

#include "tests/check.hpp"

namespace cube::tests {

namespace {

struct Rows {
    size_t count;
    CtrColumns columns;
    std::vector<int64_t> ids;
    std::vector<float> floats;
};

Rows random_rows(size_t count, CtrColumns columns, Random& random) {
    Rows rows{count, columns, std::vector<int64_t>(count * columns.slots),
              std::vector<float>(count * columns.dense)};
    for (int64_t& id : rows.ids) id = static_cast<int64_t>(random.key());
    for (float& value : rows.floats) value = static_cast<float>(random.below(1000)) / 7;
    return rows;
}

std::vector<uint8_t> encode(const Rows& rows) {
    std::vector<uint8_t> bytes(ctr_request_size(rows.count, rows.columns, rows.ids.data()));
    encode_ctr_request(rows.count, rows.columns, rows.ids.data(), rows.floats.data(), bytes.data());
    return bytes;
}

Rows parse(Bytes payload, CtrColumns columns) {
    const size_t count = count_ctr_instances(payload, 1000);
    Rows rows{count, columns, std::vector<int64_t>(count * columns.slots),
              std::vector<float>(count * columns.dense)};
    parse_ctr_request(payload, columns, rows.ids.data(), rows.floats.data());
    return rows;
}

}  // namespace

TEST(ctr_requests_come_back) {
    Random random(90);
    for (int round = 0; round < 200; ++round) {
        const CtrColumns columns{random.below(30), random.below(15)};
        const Rows rows = random_rows(random.below(20), columns, random);
        const Rows back = parse(ExactBytes(encode(rows)).span(), columns);
        CHECK(back.count == rows.count && back.ids == rows.ids && back.floats == rows.floats);
    }
}

TEST(ctr_requests_of_hostile_bytes_are_refused) {
    Random random(91);
    const CtrColumns columns{4, 3};
    const std::vector<std::vector<uint8_t>> valid = {encode(random_rows(5, columns, random))};
    expect_tamed(valid, ErrorKind::kWire, 92,
                 [&](std::span<const uint8_t> bytes) { parse(bytes, columns); });
}

TEST(ctr_responses_of_hostile_bytes_are_refused) {
    const std::vector<float> probabilities = {0.25f, 0.75f, 1.0f, 0.0f};
    const std::string_view message = "a message";
    std::vector<uint8_t> bytes(ctr_response_size(2, -1, message));
    encode_ctr_response(2, probabilities.data(), -1, message, bytes.data());
    const CtrResponse back = parse_ctr_response(ExactBytes(bytes).span());
    CHECK(back.probabilities == probabilities && back.err_code == -1 && back.err_msg == message);
    const std::vector<std::vector<uint8_t>> valid = {bytes};
    expect_tamed(valid, ErrorKind::kWire, 93, [&](std::span<const uint8_t> damaged) {
        const CtrResponse parsed = parse_ctr_response(damaged);
        CHECK(parsed.probabilities.size() * 4 <= damaged.size());
    });
}

}  // namespace cube::tests
