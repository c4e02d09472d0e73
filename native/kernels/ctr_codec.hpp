#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/protobuf.hpp"

namespace cube {

// Ids and floats of every instance of a CTR request. Row i of a matrix begins at i * its columns.
struct CtrColumns {
    size_t slots;
    size_t dense;
};

// Counts the instances of a Request. Throws Error(kWire) when it does not parse and Error(kLimit)
// when there are more than `rows_max`.
size_t count_ctr_instances(Bytes payload, size_t rows_max);

// Fills `sparse_ids` [rows, slots] and `dense_ids` [rows, dense], where `rows` is what
// count_ctr_instances gave for the same bytes. Throws Error(kWire), which names the instance when
// its numbers do not fit the columns.
void parse_ctr_request(Bytes payload, CtrColumns columns, int64_t* sparse_ids, float* dense_ids);

// Bytes of the Request of these rows, and the request itself; `target` has that many bytes.
size_t ctr_request_size(size_t rows, CtrColumns columns, const int64_t* sparse_ids);
void encode_ctr_request(size_t rows, CtrColumns columns, const int64_t* sparse_ids,
                        const float* dense_ids, uint8_t* target);

size_t ctr_response_size(size_t rows, int64_t err_code, std::string_view err_msg);
// `probabilities` is [rows, 2].
void encode_ctr_response(size_t rows, const float* probabilities, int64_t err_code,
                         std::string_view err_msg, uint8_t* target);

struct CtrResponse {
    std::vector<float> probabilities;  // [rows, 2]
    int64_t err_code = 0;
    std::string err_msg;
};

// Throws Error(kWire) when it does not parse or lacks a required field.
CtrResponse parse_ctr_response(Bytes payload);

}  // namespace cube
