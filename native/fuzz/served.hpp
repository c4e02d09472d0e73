#pragma once

#include <numeric>

#include "fuzz/samples.hpp"
#include "fuzz/target.hpp"
#include "kernels/seek_plan.hpp"
#include "kernels/seek_response.hpp"
#include "kernels/seeker.hpp"

namespace cube::fuzz {

// Answers a DictRequest and reads the answer as a client does; throws what the request deserves.
inline void serve(Seeker& seeker, Bytes payload) {
    std::vector<uint64_t> keys;
    const PreparedSeek seek = seeker.prepare(payload, keys);
    ByteVector body(seek.response_size_max + kSeekResponseSlack);
    body.resize(seeker.write_response(seek, body.data()));
    require(body.size() <= seek.response_size_max, "the response is within its bound");
    std::vector<uint32_t> positions(keys.size());
    std::iota(positions.begin(), positions.end(), 0);
    const size_t dim = seek.table->value_bytes() / sizeof(float);
    std::vector<float> rows(keys.size() * dim);
    std::vector<int32_t> status(keys.size());
    if (keys.empty()) return;
    decode_seek_response(body, positions, {rows.data(), dim, status.data()});
    for (size_t i = 0; i < keys.size(); ++i) {
        const bool is_there = keys[i] % 3 == 0 && keys[i] < 3 * seek.table->key_count();
        require(status[i] == (is_there ? kStatusFound : kStatusMissing), "the status of a key");
    }
}

}  // namespace cube::fuzz
