// A table file, opened in every place, searched and served; as a delta it is laid over bases, as a
// whole table under deltas, and merged with them. Checksums stop nearly every mutation at
// the door, so most are sealed again, as one who makes hostile tables would.

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "fuzz/samples.hpp"
#include "fuzz/target.hpp"
#include "kernels/crc32c.hpp"
#include "kernels/seek_plan.hpp"
#include "kernels/seek_values.hpp"
#include "kernels/seeker.hpp"
#include "kernels/table.hpp"
#include "kernels/table_merge.hpp"

using namespace cube;

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t size_max);

namespace {

void store(uint8_t* at, uint32_t value) { std::memcpy(at, &value, 4); }

void seal(uint8_t* data, size_t size) {
    constexpr size_t kBlockCrcsField = 128;
    constexpr size_t kHeaderCrcField = 508;
    if (size < kTableHeaderBytes + kTableFooterBytes) return;
    uint8_t* const footer = data + size - kTableFooterBytes;
    uint64_t crcs;
    std::memcpy(&crcs, data + kBlockCrcsField, 8);
    const size_t body_end = static_cast<size_t>(footer - data);
    if (crcs < kTableHeaderBytes || crcs > body_end) return;
    uint8_t* crc_at = data + crcs;
    for (size_t begin = kTableHeaderBytes; begin < crcs && crc_at + 4 <= footer; crc_at += 4) {
        const size_t block = std::min<size_t>(kTableBlockBytes, crcs - begin);
        store(crc_at, stored_crc32c(data + begin, block));
        begin += block;
    }
    store(data + kHeaderCrcField, stored_crc32c(data, kHeaderCrcField));
    std::memcpy(footer + 8, data + kHeaderCrcField, 4);
    store(footer + 12, stored_crc32c(data + crcs, body_end - crcs));
    store(footer + 60, stored_crc32c(footer, 60));
}

constexpr uint64_t kRowsMax = 100;

bool find_rows(const Table& table) {
    std::vector<uint64_t> keys;
    for (uint64_t row = 0; row < std::min(table.row_count(), kRowsMax); ++row)
        keys.push_back(table.row_key(row));
    bool found = true;
    table.find_each(keys, [&](size_t, const uint8_t* value) { found &= value != nullptr; });
    return found;
}

void serve_rows(const std::shared_ptr<const Table>& table) {
    constexpr size_t kValueBytesInAllMax = size_t{1} << 18;
    std::vector<uint64_t> keys = {0, 1, 3, 57, ~uint64_t{0}, uint64_t{1} << 63};
    const size_t width = std::max<size_t>(1, table->value_bytes_max());
    const uint64_t rows_max = std::min(kRowsMax, kValueBytesInAllMax / width);
    for (uint64_t row = 0; row < std::min(table->row_count(), rows_max); ++row)
        keys.push_back(table->row_key(row));
    Seeker seeker(keys.size(), kValueBytesInAllMax * 2);
    seeker.set_tables("dict", table, {});
    std::vector<uint8_t> request(seek_request_size(keys, {"", true, ""}));
    write_seek_request(request.data(), keys, {"", true, ""});
    std::vector<uint64_t> parsed;
    const PreparedSeek seek = seeker.prepare(request, parsed);
    std::vector<uint8_t> response(seek.response_size_max + kSeekResponseSlack);
    const size_t size = seeker.write_response(seek, response.data());
    fuzz::require(size <= seek.response_size_max, "the response is within its bound");
    std::vector<uint32_t> positions(keys.size());
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<SeekValue> values(keys.size());
    decode_seek_values({response.data(), size}, positions, values);
}

using TablePointer = std::shared_ptr<const Table>;

// One of each kind of value.
std::vector<TablePointer> tables_of(fuzz::ByteVector (*make)(size_t, size_t, ValueKind)) {
    std::vector<TablePointer> tables;
    for (const auto& [width, kind] :
         {std::pair(size_t{12}, ValueKind::kBytes), std::pair(size_t{6}, ValueKind::kFp16),
          std::pair(size_t{11}, ValueKind::kInt8), std::pair(size_t{9}, ValueKind::kVariable)})
        tables.push_back(fuzz::opened(make(20, width, kind)));
    return tables;
}

// Every pair that iterating gives is found, and there are as many as keys.
void check_rows(const Table& table) {
    std::vector<uint64_t> keys;
    std::vector<const uint8_t*> stored;
    for (const AnsweredRow& row : table.answered_rows(0, table.slot_count())) {
        keys.emplace_back();
        std::memcpy(&keys.back(), row.key, sizeof(uint64_t));
        stored.push_back(row.stored());
    }
    fuzz::require(keys.size() == table.key_count(), "as many pairs as keys");
    table.find_each(keys, [&](size_t i, const uint8_t* value) {
        fuzz::require(value == stored[i], "a pair is found");
    });
}

void lay_over(const TablePointer& base, const TablePointer& delta) {
    fuzz::refuse_or_pass({ErrorKind::kTable}, [&] {
        const TablePointer both = Table::with_delta(base, delta);
        check_rows(*both);
        serve_rows(both);
        if (both->slot_count() > 10 * kRowsMax) return;
        static const std::string path = "/dev/shm/cube-fuzz-" + std::to_string(::getpid());
        merge_tables(path, {{base, delta}}, both->header().version);
        const TablePointer merged = Table::open(path, TablePlace::kPrivate);
        ::unlink(path.c_str());
        fuzz::require(merged->key_count() == both->key_count(), "merged, it has the same keys");
    });
}

void combine(const TablePointer& table) {
    static const std::vector<TablePointer> bases = tables_of(fuzz::table_bytes);
    static const std::vector<TablePointer> deltas = tables_of(fuzz::delta_bytes);
    if (table->header().is_delta()) {
        for (const TablePointer& base : bases) lay_over(base, table);
    } else {
        for (const TablePointer& delta : deltas) lay_over(table, delta);
    }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t size_max,
                                          unsigned seed) {
    const size_t mutated = LLVMFuzzerMutate(data, size, size_max);
    if (seed % 8 != 0) seal(data, mutated);
    return mutated;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static fuzz::MemoryFile file;
    file.replace({data, size});
    int opened = 0;
    for (const TablePlace place : {TablePlace::kPrivate, TablePlace::kShared, TablePlace::kMapped})
        fuzz::refuse_or_pass({ErrorKind::kTable}, [&] {
            const auto table = Table::open(file.path(), place);
            ++opened;
            fuzz::require(find_rows(*table), "a row's key is found");
            if (!table->header().is_delta()) serve_rows(table);
            if (place == TablePlace::kPrivate) combine(table);
        });
    fuzz::require(opened == 0 || opened == 3, "a table opens in every place, or in none");
    return 0;
}
