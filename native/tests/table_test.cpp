#include "kernels/table.hpp"

#include <cstring>
#include <map>
#include <numeric>

#include "kernels/seek_response.hpp"
#include "kernels/table_writer.hpp"
#include "tests/check.hpp"
#include "tests/table_bytes.hpp"

namespace cube::tests {

namespace {

struct Pairs {
    std::vector<uint64_t> keys;
    std::vector<uint8_t> values;
    size_t width;
};

Pairs random_pairs(size_t count, size_t width, Random& random, uint32_t shard = 0,
                   uint32_t shard_num = 1) {
    Pairs pairs{{}, random.bytes(count * width), width};
    for (size_t i = 0; i < count; ++i)
        pairs.keys.push_back(random.key() / shard_num / 2 * shard_num + shard);
    return pairs;
}

TableReport write(const std::string& path, const Pairs& pairs, uint32_t shard = 0,
                  uint32_t shard_num = 1) {
    return write_table(
        path, {pairs.keys, pairs.values.data(), pairs.width, "dict", "7_9", shard, shard_num});
}

std::map<uint64_t, const uint8_t*> last_values(const Pairs& pairs) {
    std::map<uint64_t, const uint8_t*> values;
    for (size_t i = 0; i < pairs.keys.size(); ++i)
        values[pairs.keys[i]] = pairs.values.data() + i * pairs.width;
    return values;
}

void expect_same(const Table& table, const Pairs& pairs, Random& random) {
    const auto expected = last_values(pairs);
    CHECK(table.key_count() == expected.size());
    std::vector<uint64_t> asked = pairs.keys;
    for (int i = 0; i < 200; ++i) asked.push_back(random.key());
    size_t visited = 0;
    table.find_each(asked, [&](size_t i, const uint8_t* value) {
        CHECK(i == visited++);
        const auto place = expected.find(asked[i]);
        CHECK((place != expected.end()) == (value != nullptr));
        CHECK(value == nullptr || std::memcmp(value, place->second, pairs.width) == 0);
    });
    CHECK(visited == asked.size());
}

std::vector<uint8_t> small_table(const TemporaryDirectory& directory, size_t count = 9) {
    Random random(50);
    write(directory.file("small"), random_pairs(count, 12, random));
    return read_whole(directory.file("small"));
}

// Opens both ways what `bytes` would be as a file; false when it is refused as a table.
bool opens(const TemporaryDirectory& directory, std::span<const uint8_t> bytes) {
    const std::string path = directory.file("damaged");
    write_whole(path, bytes);
    int opened = 0;
    for (const TablePlace place :
         {TablePlace::kPrivate, TablePlace::kShared, TablePlace::kMapped}) {
        try {
            const auto table = Table::open(path, place);
            const std::vector<uint64_t> keys = {0, 1, 5, ~uint64_t{0}};
            table->find_each(keys, [](size_t, const uint8_t*) {});
            ++opened;
        } catch (const Error& error) {
            CHECK(error.kind() == ErrorKind::kTable);
            CHECK(std::string(error.what()).find(path) == 0);
        }
    }
    CHECK(opened == 0 || opened == 3);
    return opened == 3;
}

}  // namespace

TEST(rows_in_fewer_bytes_are_served_as_float32) {
    const TemporaryDirectory directory;
    Random random(51);
    for (const ValueKind kind : {ValueKind::kFp16, ValueKind::kInt8}) {
        for (const size_t count : {size_t{1}, size_t{10}, size_t{500}}) {
            const size_t stored = kind == ValueKind::kFp16 ? 2 * count : kInt8HeadBytes + count;
            // Any bits make a number, or none.
            const Pairs pairs = random_pairs(100, stored, random);
            TableInput input{pairs.keys, pairs.values.data(), stored, "dict", "7_9", 0, 1, kind};
            write_table(directory.file("table"), input);
            const auto table = Table::open(directory.file("table"), TablePlace::kPrivate);
            CHECK(table->value_bytes() == count * sizeof(float));
            std::vector<uint8_t> body(
                seek_response_size_max(pairs.keys.size(), table->value_bytes(), "") +
                kSeekResponseSlack);
            const SeekResponse response = write_seek_response(*table, pairs.keys, "", body.data());
            CHECK(response.missing_count == 0 && response.bytes <= body.size());
            std::vector<uint8_t> served(table->value_bytes());
            const uint8_t* at = body.data() + FoundHead(served.size()).size;
            table->find_each(std::span(pairs.keys).first(1), [&](size_t, const uint8_t* value) {
                table->serve_value(value, served.data());
            });
            CHECK(std::equal(served.begin(), served.end(), at));
        }
    }
}

TEST(tables_of_many_sizes_and_widths_come_back) {
    const TemporaryDirectory directory;
    Random random(51);
    for (const size_t count : {0, 1, 2, 3, 4, 5, 7, 20, 31, 32, 33, 64, 100, 1000, 5000})
        for (const size_t width : {1, 4, 7, 40, 300}) {
            const Pairs pairs = random_pairs(count, width, random);
            write(directory.file("table"), pairs);
            for (const TablePlace place :
                 {TablePlace::kPrivate, TablePlace::kShared, TablePlace::kMapped})
                expect_same(*Table::open(directory.file("table"), place), pairs, random);
        }
    const Pairs wide = random_pairs(3, 65535, random);
    write(directory.file("table"), wide);
    expect_same(*Table::open(directory.file("table"), TablePlace::kPrivate), wide, random);
}

TEST(a_table_of_several_parts_and_blocks_comes_back) {
    const TemporaryDirectory directory;
    Random random(52);
    Pairs pairs{std::vector<uint64_t>(600000), random.bytes(600000 * 8), 8};
    std::iota(pairs.keys.begin(), pairs.keys.end(), uint64_t{1} << 40);
    const TableReport report = write(directory.file("table"), pairs);
    CHECK(report.key_count == 600000);
    CHECK(report.overhead_bytes_per_key < 10);
    expect_same(*Table::open(directory.file("table"), TablePlace::kPrivate), pairs, random);
}

TEST(the_last_of_equal_keys_wins_and_order_does_not_matter) {
    const TemporaryDirectory directory;
    Random random(53);
    Pairs pairs = random_pairs(500, 4, random);
    const Pairs first = pairs;
    write(directory.file("plain"), pairs);
    for (int i = 0; i < 300; ++i) {  // older values of keys that come again later
        pairs.keys.insert(pairs.keys.begin(),
                          pairs.keys[pairs.keys.size() - 1 - random.below(500)]);
        const std::vector<uint8_t> older = random.bytes(4);
        pairs.values.insert(pairs.values.begin(), older.begin(), older.end());
    }
    const TableReport report = write(directory.file("repeated"), pairs);
    CHECK(report.duplicate_count == 800 - report.key_count);
    expect_same(*Table::open(directory.file("repeated"), TablePlace::kPrivate), first, random);
    CHECK(read_whole(directory.file("plain")) == read_whole(directory.file("repeated")));

    const Pairs one{std::vector<uint64_t>(100000, 42), random.bytes(100000 * 4), 4};
    write(directory.file("one"), one);
    expect_same(*Table::open(directory.file("one"), TablePlace::kPrivate), one, random);
}

TEST(every_flipped_byte_is_noticed) {
    const TemporaryDirectory directory;
    const std::vector<uint8_t> good = small_table(directory);
    CHECK(opens(directory, good));
    Random random(54);
    for (size_t at = 0; at < good.size(); ++at) {
        std::vector<uint8_t> bytes = good;
        bytes[at] ^= static_cast<uint8_t>(1 + random.below(255));
        CHECK(!opens(directory, bytes));
    }
}

TEST(every_other_length_is_noticed) {
    const TemporaryDirectory directory;
    std::vector<uint8_t> good = small_table(directory);
    for (size_t size = 0; size < good.size(); ++size)
        CHECK(!opens(directory, std::span(good).first(size)));
    good.push_back(0);
    CHECK(!opens(directory, good));
}

TEST(hostile_headers_with_right_checksums_are_refused) {
    const TemporaryDirectory directory;
    const std::vector<uint8_t> good = small_table(directory);
    const size_t block_crcs = load_u64(good, 128);
    Random random(55);
    constexpr uint64_t kNasty[] = {0,          1,          2,          63,         0x7fffffff,
                                   0x80000000, 0xfffffffe, 0xffffffff, 1ull << 40, ~0ull - 7};
    for (size_t at = 8; at < 152; at += 4) {
        if (at == 24 || (at >= 48 && at < 56)) continue;  // shard and seed: see the body's test
        for (const uint64_t value : kNasty) {
            // Another kind of value that fits the width is another table, and a sound one.
            if (at == 20 && value <= kValueKindMax) continue;
            std::vector<uint8_t> bytes = good;
            std::memcpy(&bytes[at], &value, at % 8 == 0 && at >= 80 ? 8 : 4);
            seal(bytes, block_crcs);
            const bool same = std::memcmp(&bytes[at], &good[at], 8) == 0;
            if (opens(directory, bytes) != same)
                throw Failure("offset " + std::to_string(at) + " value " + std::to_string(value));
        }
    }
}

TEST(hostile_bodies_with_right_checksums_are_refused_or_harmless) {
    const TemporaryDirectory directory;
    const std::vector<uint8_t> good = small_table(directory, 40);
    const size_t block_crcs = load_u64(good, 128);
    Random random(56);
    size_t refused = 0;
    for (int round = 0; round < 3000; ++round) {
        std::vector<uint8_t> bytes = good;
        const bool in_seed = random.below(10) == 0;
        const size_t at = in_seed
                              ? 48 + random.below(8)
                              : kTableHeaderBytes + random.below(block_crcs - kTableHeaderBytes);
        bytes[at] = static_cast<uint8_t>(random.bits());
        seal(bytes, block_crcs);
        refused += !opens(directory, bytes);
    }
    CHECK(refused > 500);
}

TEST(a_file_that_is_not_there_is_an_os_error) {
    const TemporaryDirectory directory;
    const Error error =
        error_of([&] { Table::open(directory.file("none"), TablePlace::kPrivate); });
    CHECK(error.kind() == ErrorKind::kOs);
}

}  // namespace cube::tests
