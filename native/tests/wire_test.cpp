#include <map>

#include "kernels/ctr_codec.hpp"
#include "kernels/frame.hpp"
#include "kernels/seek_plan.hpp"
#include "kernels/seek_request.hpp"
#include "kernels/seek_response.hpp"
#include "kernels/seeker.hpp"
#include "kernels/table_writer.hpp"
#include "tests/check.hpp"

namespace cube::tests {

namespace {

std::vector<uint8_t> to_bytes(std::string_view text) { return {text.begin(), text.end()}; }

std::vector<uint8_t> request_of(std::span<const uint64_t> keys, const SeekOptions& options) {
    std::vector<uint8_t> bytes(seek_request_size(keys, options));
    CHECK(write_seek_request(bytes.data(), keys, options) == bytes.data() + bytes.size());
    return bytes;
}

std::vector<uint8_t> framed(const std::vector<uint8_t>& payload) {
    std::vector<uint8_t> frame = to_bytes(
        encode_request_head({"rec.mcube.DictService", "seek", -3, 70, 9}, payload.size(), 0));
    frame.insert(frame.end(), payload.begin(), payload.end());
    return frame;
}

std::shared_ptr<const Table> table_of_even_keys(const TemporaryDirectory& directory, size_t width) {
    std::vector<uint64_t> keys;
    for (uint64_t key = 0; key < 4000; key += 2) keys.push_back(key);
    Random random(60);
    const std::vector<uint8_t> values = random.bytes(keys.size() * width);
    write_table(directory.file("even"), {keys, values.data(), width, "dict", "1_1", 0, 1});
    return Table::open(directory.file("even"), TablePlace::kPrivate);
}

std::vector<uint8_t> answer(Seeker& seeker, Bytes payload) {
    std::vector<uint64_t> keys;
    const PreparedSeek seek = seeker.prepare(payload, keys);
    std::vector<uint8_t> body(seek.response_size_max + kSeekResponseSlack);
    body.resize(seeker.write_response(seek, body.data()));
    CHECK(body.size() <= seek.response_size_max);
    return body;
}

}  // namespace

TEST(seek_requests_come_back) {
    Random random(61);
    for (int round = 0; round < 2000; ++round) {
        std::vector<uint64_t> keys(random.below(40));
        for (uint64_t& key : keys) key = random.key();
        const std::vector<uint8_t> bytes = request_of(keys, {"1_2", random.below(2) != 0});
        std::vector<uint64_t> parsed;
        const SeekRequest request = parse_seek_request(ExactBytes(bytes).span(), 40, parsed);
        CHECK(parsed == keys);
        CHECK(request.has_version && request.key_count == keys.size());
    }
}

TEST(packed_and_unpacked_keys_mix) {
    const std::vector<uint8_t> bytes = {0x08, 0x01, 0x0a, 0x03, 0x02, 0x80, 0x01, 0x08, 0x03};
    std::vector<uint64_t> keys;
    parse_seek_request(bytes, 10, keys);
    CHECK((keys == std::vector<uint64_t>{1, 2, 128, 3}));
    keys.clear();
    CHECK(error_of([&] { parse_seek_request(bytes, 3, keys); }).kind() == ErrorKind::kLimit);
}

TEST(seek_requests_are_tame) {
    const std::vector<uint64_t> keys = {1, 300, 1u << 20, uint64_t{1} << 45, ~uint64_t{0}};
    const std::vector<std::vector<uint8_t>> valid = {
        request_of(keys, {"10_10", true}), {0x0a, 0x03, 0x02, 0x80, 0x01, 0x08, 0x03, 0x10, 0x01}};
    expect_tamed(valid, ErrorKind::kWire, 62, [](Bytes bytes) {
        std::vector<uint64_t> parsed;
        parse_seek_request(bytes, 16, parsed);
    });
}

TEST(frames_are_tame) {
    const std::vector<std::vector<uint8_t>> valid = {
        framed({0x08, 0x01, 0x08, 0x02}), framed({}),
        to_bytes(encode_error_frame(7, 1003, "not this way"))};
    expect_tamed(valid, ErrorKind::kWire, 63, [](Bytes bytes) {
        const size_t size = frame_size(bytes, 4096);
        if (size <= bytes.size()) parse_frame(bytes.first(size));
    });
}

TEST(a_frame_comes_back) {
    const std::vector<uint8_t> payload = {0x08, 0x01};
    const std::vector<uint8_t> bytes = framed(payload);
    CHECK(frame_size(bytes, 1000) == bytes.size());
    const Frame frame = parse_frame(bytes);
    CHECK(frame.is_request && frame.service == "rec.mcube.DictService" && frame.method == "seek");
    CHECK(frame.correlation_id == -3 && frame.timeout_ms == 70 && frame.log_id == 9);
    CHECK(std::ranges::equal(frame.payload, payload) && frame.fault.empty());
    CHECK(is_plain_seek(frame));
}

TEST(seeks_agree_with_the_table_through_plan_and_back) {
    const TemporaryDirectory directory;
    Random random(64);
    for (const size_t dim : {1, 3, 8, 10, 16, 32, 64, 70}) {
        Seeker seeker(1000, 1 << 20);
        const auto table = table_of_even_keys(directory, dim * 4);
        seeker.set_tables("", table, {});
        std::vector<uint64_t> keys(random.below(300));
        for (uint64_t& key : keys) key = random.below(4200);
        const SeekPlan plan(keys, 3);
        std::vector<float> rows(keys.size() * dim, 9);
        std::vector<int32_t> status(keys.size(), 9);
        for (const uint32_t shard : plan.shards()) {
            const auto body = answer(seeker, request_of(plan.keys_of(shard), {{}, true}));
            const SeekVersion version =
                decode_seek_response(ExactBytes(body).span(), plan.positions_of(shard),
                                     {rows.data(), dim, status.data()});
            CHECK(version.present && version.name == "1_1");
            plan.spread(shard, {rows.data(), dim, status.data()});
        }
        table->find_each(keys, [&](size_t i, const uint8_t* value) {
            CHECK(status[i] == (value != nullptr ? kStatusFound : kStatusMissing));
            const std::vector<uint8_t> zeros(dim * 4, 0);
            CHECK(std::memcmp(&rows[i * dim], value != nullptr ? value : zeros.data(), dim * 4) ==
                  0);
        });
    }
}

TEST(whole_requests_are_tame) {
    const TemporaryDirectory directory;
    Seeker seeker(100, 1 << 20);
    seeker.set_tables("", table_of_even_keys(directory, 40), {});
    const std::vector<uint64_t> keys = {2, 4, 5, 3998, 4000, ~uint64_t{0}};
    const std::vector<std::vector<uint8_t>> valid = {request_of(keys, {{}, true}),
                                                     request_of(keys, {"1_1", false})};
    expect_tamed(valid, ErrorKind::kWire, 65, [&](Bytes bytes) {
        try {
            answer(seeker, bytes);
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::kVersionNotLoaded) throw;
        }
    });
    CHECK(seeker.error_count() > 0 && seeker.request_count() > seeker.error_count());
}

TEST(seek_responses_are_tame) {
    const TemporaryDirectory directory;
    Seeker seeker(100, 1 << 20);
    seeker.set_tables("", table_of_even_keys(directory, 12), {});
    const std::vector<uint64_t> keys = {2, 4, 5, 3998, 4000};
    const std::vector<std::vector<uint8_t>> valid = {answer(seeker, request_of(keys, {{}, true})),
                                                     answer(seeker, request_of(keys, {}))};
    const SeekPlan plan(keys, 1);
    for (const size_t dim : {3, 4}) {
        expect_tamed(valid, ErrorKind::kWire, 66, [&](Bytes bytes) {
            std::vector<float> rows(keys.size() * dim);
            std::vector<int32_t> status(keys.size());
            decode_seek_response(bytes, plan.positions_of(0), {rows.data(), dim, status.data()});
        });
    }
    expect_tamed(valid, ErrorKind::kWire, 67, [](Bytes bytes) { first_value_size(bytes); });
}

TEST(ctr_messages_are_tame) {
    const CtrColumns columns{3, 2};
    const std::vector<int64_t> sparse_ids = {1, -2, 300, 4, 5, int64_t{1} << 60};
    const std::vector<float> dense_ids = {0.5F, 1, 2, 3};
    std::vector<uint8_t> request(ctr_request_size(2, columns, sparse_ids.data()));
    encode_ctr_request(2, columns, sparse_ids.data(), dense_ids.data(), request.data());
    expect_tamed(std::span(&request, 1), ErrorKind::kWire, 68, [&](Bytes bytes) {
        const size_t rows = count_ctr_instances(bytes, 10);
        std::vector<int64_t> ids(rows * columns.slots);
        std::vector<float> floats(rows * columns.dense);
        parse_ctr_request(bytes, columns, ids.data(), floats.data());
    });
    std::vector<uint8_t> response(ctr_response_size(2, -1, "no"));
    encode_ctr_response(2, dense_ids.data(), -1, "no", response.data());
    expect_tamed(std::span(&response, 1), ErrorKind::kWire, 69,
                 [](Bytes bytes) { parse_ctr_response(bytes); });
}

}  // namespace cube::tests
