#include <cstring>
#include <map>

#include "kernels/seek_plan.hpp"
#include "kernels/seek_response.hpp"
#include "kernels/seeker.hpp"
#include "kernels/table.hpp"
#include "kernels/table_merge.hpp"
#include "kernels/table_writer.hpp"
#include "tests/check.hpp"
#include "tests/table_bytes.hpp"

namespace cube::tests {

namespace {

using TablePointer = std::shared_ptr<const Table>;
// What a key's value repeats; -1: deleted.
using Rows = std::map<uint64_t, int>;

constexpr size_t kWidth = 12;

TableReport write(const std::string& path, const Rows& rows, bool is_delta,
                  ValueKind kind = ValueKind::kBytes) {
    std::vector<uint64_t> keys, deletions;
    std::vector<uint8_t> values;
    std::vector<int64_t> offsets = {0};
    for (const auto& [key, number] : rows) {
        if (number < 0) {
            deletions.push_back(key);
            continue;
        }
        keys.push_back(key);
        const size_t width = kind == ValueKind::kVariable ? 1 + key % kWidth : kWidth;
        values.insert(values.end(), width, static_cast<uint8_t>(number));
        offsets.push_back(static_cast<int64_t>(values.size()));
    }
    TableInput input;
    input.keys = keys;
    input.values = values.data();
    input.value_bytes = kWidth;
    input.value_kind = kind;
    input.offsets = offsets;
    input.dict_name = "dict";
    input.version = is_delta ? "7_9" : "7_7";
    if (is_delta) input.base_version = "7_7";
    input.deletions = deletions;
    return write_table(path, input);
}

TablePointer made(const TemporaryDirectory& directory, const char* name, const Rows& rows,
                  bool is_delta, ValueKind kind = ValueKind::kBytes) {
    write(directory.file(name), rows, is_delta, kind);
    return Table::open(directory.file(name), TablePlace::kPrivate);
}

Rows random_rows(size_t count, Random& random, bool with_deletions) {
    Rows rows;
    for (size_t i = 0; i < count; ++i)
        rows[random.below(3 * count + 2)] =
            with_deletions && random.below(3) == 0 ? -1 : static_cast<int>(random.below(256));
    return rows;
}

Rows laid_over(Rows rows, const Rows& changes) {
    for (const auto& [key, number] : changes) rows[key] = number;
    std::erase_if(rows, [](const auto& row) { return row.second < 0; });
    return rows;
}

void expect_served(const Table& table, const Rows& rows, uint64_t keys_end) {
    std::vector<uint64_t> asked(keys_end);
    for (size_t i = 0; i < asked.size(); ++i) asked[i] = i;
    size_t visited = 0;
    table.find_each(asked, [&](size_t i, const uint8_t* stored) {
        CHECK(i == visited++);
        const auto row = rows.find(asked[i]);
        CHECK((row != rows.end()) == (stored != nullptr));
        if (stored == nullptr) return;
        std::vector<uint8_t> value(table.served_size(stored));
        table.serve_value(stored, value.data());
        CHECK(!value.empty() && value[0] == row->second && value.back() == row->second);
    });
    CHECK(visited == asked.size());
    CHECK(table.key_count() == rows.size());
    CHECK(table.answered_rows(0, table.slot_count()).size() == rows.size());
}

// Tables that a hostile delta is laid over, and what it says then.
bool combines(const TemporaryDirectory& directory, std::span<const uint8_t> bytes,
              const TablePointer& base) {
    const std::string path = directory.file("damaged");
    write_whole(path, bytes);
    try {
        const TablePointer delta = Table::open(path, TablePlace::kPrivate);
        const TablePointer both = Table::with_delta(base, delta);
        const std::vector<uint64_t> keys = {0, 1, 5, 70, ~uint64_t{0}};
        both->find_each(keys, [](size_t, const uint8_t*) {});
        both->answered_rows(0, both->slot_count());
        return true;
    } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::kTable);
        CHECK(std::string(error.what()).find(path) == 0);
        return false;
    }
}

}  // namespace

TEST(a_delta_over_its_base_answers_as_one_table) {
    const TemporaryDirectory directory;
    Random random(61);
    for (const ValueKind kind : {ValueKind::kBytes, ValueKind::kVariable})
        for (const size_t base_count : {0, 1, 33, 1000})
            for (const size_t delta_count : {0, 1, 32, 1000}) {
                const Rows rows = random_rows(base_count, random, false);
                const Rows changes = random_rows(delta_count, random, true);
                const TablePointer base = made(directory, "base", rows, false, kind);
                const TablePointer delta = made(directory, "delta", changes, true, kind);
                const Rows expected = laid_over(rows, changes);
                const TablePointer both = Table::with_delta(base, delta);
                expect_served(*both, expected, 3100);
                merge_tables(directory.file("merged"), {{base, delta}}, "7_9");
                expect_served(*Table::open(directory.file("merged"), TablePlace::kMapped), expected,
                              3100);
            }
}

TEST(a_seek_is_answered_from_base_and_delta) {
    const TemporaryDirectory directory;
    const TablePointer base = made(directory, "base", {{1, 1}, {2, 2}}, false);
    const TablePointer delta = made(directory, "delta", {{2, -1}, {3, 3}}, true);
    Seeker seeker(100, 10000);
    seeker.set_tables("dict", Table::with_delta(base, delta), {base});
    const std::vector<uint64_t> asked = {1, 2, 3, 4};
    for (const auto& [version, expected] : {std::pair<std::string_view, std::vector<int32_t>>(
                                                "7_9", {0, kStatusMissing, 0, kStatusMissing}),
                                            std::pair<std::string_view, std::vector<int32_t>>(
                                                "7_7", {0, 0, kStatusMissing, kStatusMissing})}) {
        std::vector<uint8_t> request(seek_request_size(asked, {version, true, ""}));
        write_seek_request(request.data(), asked, {version, true, ""});
        std::vector<uint64_t> keys;
        const PreparedSeek seek = seeker.prepare(request, keys);
        std::vector<uint8_t> body(seek.response_size_max + kSeekResponseSlack);
        body.resize(seeker.write_response(seek, body.data()));
        const std::vector<uint32_t> positions = {0, 1, 2, 3};
        std::vector<float> rows(4 * kWidth / 4);
        std::vector<int32_t> status(4);
        CHECK(
            decode_seek_response(body, positions, {rows.data(), kWidth / 4, status.data()}).name ==
            version);
        CHECK(status == expected);
    }
}

TEST(merged_deltas_are_the_file_of_the_same_rows) {
    const TemporaryDirectory directory;
    Random random(62);
    for (int round = 0; round < 20; ++round) {
        const Rows first = random_rows(1 + random.below(60), random, true);
        const Rows second = random_rows(1 + random.below(60), random, true);
        Rows both = first;
        for (const auto& [key, number] : second) both[key] = number;
        merge_tables(
            directory.file("merged"),
            {{made(directory, "first", first, true), made(directory, "second", second, true)}},
            "7_9");
        write(directory.file("direct"), both, true);
        CHECK(read_whole(directory.file("merged")) == read_whole(directory.file("direct")));
    }
}

TEST(hostile_deltas_with_right_checksums_are_refused_or_harmless) {
    const TemporaryDirectory directory;
    Random random(63);
    for (const ValueKind kind : {ValueKind::kBytes, ValueKind::kVariable}) {
        const TablePointer base =
            made(directory, "base", random_rows(50, random, false), false, kind);
        write(directory.file("delta"), random_rows(43, random, true), true, kind);
        const std::vector<uint8_t> good = read_whole(directory.file("delta"));
        CHECK(combines(directory, good, base));
        const size_t block_crcs = static_cast<size_t>(load_u64(good, 128));
        size_t refused = 0;
        for (int round = 0; round < 3000; ++round) {
            std::vector<uint8_t> bytes = good;
            const size_t at = random.below(block_crcs);
            bytes[at] = static_cast<uint8_t>(random.bits());
            seal(bytes, block_crcs);
            refused += !combines(directory, bytes, base);
        }
        CHECK(refused > 1000);
    }
}

TEST(deletion_marks_that_do_not_fit_are_refused) {
    const TemporaryDirectory directory;
    const TablePointer base = made(directory, "base", {{1, 1}}, false);
    write(directory.file("delta"), {{1, 1}, {2, -1}, {3, 3}}, true);
    const std::vector<uint8_t> good = read_whole(directory.file("delta"));
    const size_t block_crcs = static_cast<size_t>(load_u64(good, 128));
    // The marks are the section before the rows; three keys make one byte of them.
    const size_t marks = static_cast<size_t>(load_u64(good, 112)) - 64;
    for (int bits = 0; bits < 256; ++bits) {
        std::vector<uint8_t> bytes = good;
        bytes[marks] = static_cast<uint8_t>(bits);
        seal(bytes, block_crcs);
        CHECK(combines(directory, bytes, base) == (bits == 1 || bits == 2 || bits == 4));
    }
}

}  // namespace cube::tests
