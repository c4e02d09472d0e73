// DictResponse as a client reads it, from a server that may be anyone.

#include <vector>

#include "fuzz/target.hpp"
#include "kernels/seek_plan.hpp"
#include "kernels/seek_values.hpp"

using namespace cube;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const Bytes body(data, size);
    const std::vector<uint64_t> keys = {0, 3, 4, 3, 6, 0};
    const SeekPlan plan(keys, 1);
    for (const size_t dim : {size_t{1}, size_t{3}, size_t{16}}) {
        fuzz::refuse_or_pass({ErrorKind::kWire}, [&] {
            std::vector<float> rows(keys.size() * dim);
            std::vector<int32_t> status(keys.size(), 9);
            const SeekTarget target{rows.data(), dim, status.data()};
            decode_seek_response(body, plan.positions_of(0), target);
            plan.spread(0, target);
            for (const int32_t each : status) fuzz::require(each <= 0, "every key has a status");
        });
    }
    fuzz::refuse_or_pass({ErrorKind::kWire}, [&] {
        std::vector<SeekValue> values(keys.size());
        decode_seek_values(body, plan.positions_of(0), values);
        plan.spread(0, std::span(values));
        std::vector<int64_t> offsets(keys.size() + 1);
        std::vector<int32_t> status(keys.size());
        std::vector<uint8_t> copied(sum_up_values(values, offsets.data(), status.data()));
        fuzz::require(copied.size() <= 3 * size, "values are within their message");
        copy_values(values, copied.data());
    });
    fuzz::refuse_or_pass({ErrorKind::kWire}, [&] {
        fuzz::require(first_value_size(body) <= size, "a value is within its message");
    });
    return 0;
}
