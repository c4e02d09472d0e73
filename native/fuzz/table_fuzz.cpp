// A table file, opened in every place, searched and served. Checksums stop nearly every mutation at
// the door, so most are sealed again, as one who makes hostile tables would.

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "fuzz/target.hpp"
#include "kernels/crc32c.hpp"
#include "kernels/seek_plan.hpp"
#include "kernels/seek_values.hpp"
#include "kernels/seeker.hpp"
#include "kernels/table.hpp"

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
    for (uint64_t row = 0; row < std::min(table.key_count(), kRowsMax); ++row)
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
    for (uint64_t row = 0; row < std::min(table->key_count(), rows_max); ++row)
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
            serve_rows(table);
        });
    fuzz::require(opened == 0 || opened == 3, "a table opens in every place, or in none");
    return 0;
}
