#include <cstring>
#include <map>
#include <string>

#include "kernels/seek_plan.hpp"
#include "kernels/seek_values.hpp"
#include "kernels/seeker.hpp"
#include "kernels/table_writer.hpp"
#include "tests/check.hpp"
#include "tests/table_bytes.hpp"

namespace cube::tests {

namespace {

struct VariablePairs {
    std::vector<uint64_t> keys;
    std::vector<int64_t> offsets = {0};
    std::vector<uint8_t> values;

    std::vector<uint8_t> value(size_t i) const {
        return {values.begin() + offsets[i], values.begin() + offsets[i + 1]};
    }
};

VariablePairs random_pairs(size_t count, size_t width_max, Random& random) {
    VariablePairs pairs;
    for (size_t i = 0; i < count; ++i) {
        pairs.keys.push_back(random.key());
        const std::vector<uint8_t> value = random.bytes(1 + random.below(width_max));
        pairs.values.insert(pairs.values.end(), value.begin(), value.end());
        pairs.offsets.push_back(static_cast<int64_t>(pairs.values.size()));
    }
    return pairs;
}

TableReport write(const std::string& path, const VariablePairs& pairs) {
    TableInput input{pairs.keys,           pairs.values.data(), 0, "dict", "7_9", 0, 1,
                     ValueKind::kVariable, pairs.offsets};
    return write_table(path, input);
}

void expect_answers(const std::shared_ptr<const Table>& table, const VariablePairs& pairs,
                    Random& random) {
    std::map<uint64_t, size_t> last;
    for (size_t i = 0; i < pairs.keys.size(); ++i) last[pairs.keys[i]] = i;
    std::vector<uint64_t> asked = pairs.keys;
    for (int i = 0; i < 50; ++i) asked.push_back(random.key());
    Seeker seeker(1 << 20, size_t{64} << 20);
    seeker.set_tables("dict", table, {});
    const SeekPlan plan(asked, 1);
    std::vector<uint8_t> request(seek_request_size(plan.keys_of(0), {"7_9", true, "dict"}));
    write_seek_request(request.data(), plan.keys_of(0), {"7_9", true, "dict"});
    std::vector<uint64_t> keys;
    const PreparedSeek seek = seeker.prepare(request, keys);
    std::vector<uint8_t> body(seek.response_size_max + kSeekResponseSlack);
    CHECK(seeker.write_response(seek, body.data()) == seek.response_size_max);
    body.resize(seek.response_size_max);
    std::vector<SeekValue> values(asked.size());
    CHECK(decode_seek_values(body, plan.positions_of(0), values).name == "7_9");
    plan.spread(0, std::span(values));
    for (size_t i = 0; i < asked.size(); ++i) {
        const auto place = last.find(asked[i]);
        CHECK(values[i].status == (place == last.end() ? kStatusMissing : kStatusFound));
        const auto wanted =
            place == last.end() ? std::vector<uint8_t>() : pairs.value(place->second);
        CHECK(std::equal(values[i].value.begin(), values[i].value.end(), wanted.begin(),
                         wanted.end()));
    }
}

bool opens(const std::string& path, std::span<const uint8_t> bytes) {
    write_whole(path, bytes);
    try {
        Table::open(path, TablePlace::kPrivate);
        return true;
    } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::kTable);
        return false;
    }
}

}  // namespace

TEST(values_of_variable_width_come_back) {
    const TemporaryDirectory directory;
    Random random(61);
    const std::string path = directory.file("table");
    for (const size_t count : {0, 1, 2, 33, 500, 3000})
        for (const size_t width_max : {size_t{1}, size_t{300}}) {
            const VariablePairs pairs = random_pairs(count, width_max, random);
            write(path, pairs);
            for (const TablePlace place :
                 {TablePlace::kPrivate, TablePlace::kShared, TablePlace::kMapped})
                expect_answers(Table::open(path, place), pairs, random);
        }
    const VariablePairs wide = random_pairs(100, 65535, random);
    write(path, wide);
    expect_answers(Table::open(path, TablePlace::kPrivate), wide, random);
}

TEST(places_that_are_not_end_to_end_are_refused) {
    const TemporaryDirectory directory;
    Random random(62);
    const std::string path = directory.file("table");
    write(path, random_pairs(20, 40, random));
    const std::vector<uint8_t> good = read_whole(path);
    const size_t rows = load_u64(good, 112);
    const size_t block_crcs = load_u64(good, 128);
    CHECK(opens(path, good));
    for (size_t at = rows; at < rows + 20 * 16; ++at) {
        if (at % 16 < 8) continue;  // the key
        std::vector<uint8_t> bytes = good;
        bytes[at] ^= static_cast<uint8_t>(1 + random.below(255));
        seal(bytes, block_crcs);
        CHECK(!opens(path, bytes));
    }
    for (const size_t at : {20, 40, 488, 496, 504}) {
        for (const uint32_t value : {0u, 1u, 7u, 16u, 0x7fffffffu, 0xffffffffu}) {
            std::vector<uint8_t> bytes = good;
            store_u32(bytes, at, value);
            seal(bytes, block_crcs);
            CHECK(opens(path, bytes) == (bytes == good));
        }
    }
}

TEST(values_that_no_heap_takes_are_refused) {
    const TemporaryDirectory directory;
    for (const size_t width : {size_t{0}, size_t{65536}}) {
        VariablePairs pairs{{4, 5}, {0, 1, static_cast<int64_t>(1 + width)}, {}};
        pairs.values.resize(1 + width);
        try {
            write(directory.file("table"), pairs);
            throw Failure("it was taken");
        } catch (const std::invalid_argument& error) {
            CHECK(std::string(error.what()).find("keys[1] = 5") == 0);
        }
    }
}

}  // namespace cube::tests
