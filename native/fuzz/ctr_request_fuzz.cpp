// A CTR request: what parses comes back the same after it is written again.

#include <cstring>
#include <vector>

#include "fuzz/target.hpp"
#include "kernels/ctr_codec.hpp"

using namespace cube;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr size_t kRowsMax = 1000;
    const Bytes payload(data, size);
    for (const CtrColumns columns : {CtrColumns{3, 2}, CtrColumns{1, 0}, CtrColumns{26, 13}})
        fuzz::refuse_or_pass({ErrorKind::kWire, ErrorKind::kLimit}, [&] {
            const size_t rows = count_ctr_instances(payload, kRowsMax);
            std::vector<int64_t> ids(rows * columns.slots);
            std::vector<float> floats(rows * columns.dense);
            parse_ctr_request(payload, columns, ids.data(), floats.data());
            std::vector<uint8_t> again(ctr_request_size(rows, columns, ids.data()));
            encode_ctr_request(rows, columns, ids.data(), floats.data(), again.data());
            fuzz::require(count_ctr_instances(again, kRowsMax) == rows, "rows come back");
            std::vector<int64_t> same_ids(ids.size());
            std::vector<float> same_floats(floats.size());
            parse_ctr_request(again, columns, same_ids.data(), same_floats.data());
            fuzz::require(same_ids == ids, "ids come back");
            fuzz::require(floats.empty() || std::memcmp(floats.data(), same_floats.data(),
                                                        floats.size() * sizeof(float)) == 0,
                          "floats come back");
        });
    fuzz::refuse_or_pass({ErrorKind::kWire}, [&] { parse_ctr_response(payload); });
    return 0;
}
