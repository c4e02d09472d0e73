#include "kernels/ctr_codec.hpp"

#include <bit>
#include <cstring>

#include "kernels/error.hpp"
#include "kernels/varint.hpp"

namespace cube {

namespace {

constexpr uint8_t kFieldOneBytes = 0x0a;
constexpr uint8_t kFieldOneVarint = 0x08;
constexpr uint8_t kFieldOneFixed32 = 0x0d;
constexpr uint8_t kFieldTwoVarint = 0x10;
constexpr uint8_t kFieldTwoFixed32 = 0x15;
constexpr uint8_t kFieldThreeBytes = 0x1a;
constexpr uint32_t kIdsPerSlotField = 3;
constexpr size_t kTagBytes = 1;
constexpr size_t kFloatFieldBytes = kTagBytes + 4;
constexpr size_t kPredictionBytes = 2 * kFloatFieldBytes;

// The values of one field of one instance: written while they fit, counted beyond.
template <typename T>
struct Cells {
    T* target;
    size_t capacity;
    size_t count = 0;

    void push(T value) {
        if (count < capacity) target[count] = value;
        ++count;
    }
};

void parse_packed_ids(ProtobufReader& instance, const uint8_t* origin, Cells<int64_t>& ids) {
    ProtobufReader packed(instance.bytes(), "packed sparse_ids", origin);
    while (!packed.at_end()) ids.push(static_cast<int64_t>(packed.varint()));
}

void parse_packed_floats(ProtobufReader& instance, const uint8_t* origin, Cells<float>& floats) {
    ProtobufReader packed(instance.bytes(), "packed dense_ids", origin);
    while (!packed.at_end()) floats.push(std::bit_cast<float>(packed.fixed32()));
}

void parse_instance(ProtobufReader instance, const uint8_t* origin, Cells<int64_t>& ids,
                    Cells<float>& floats) {
    while (instance.next()) {
        if (instance.is(1, WireType::kVarint)) {
            ids.push(static_cast<int64_t>(instance.varint()));
        } else if (instance.is(2, WireType::kFixed32)) {
            floats.push(std::bit_cast<float>(instance.fixed32()));
        } else if (instance.is(1, WireType::kBytes)) {
            parse_packed_ids(instance, origin, ids);
        } else if (instance.is(2, WireType::kBytes)) {
            parse_packed_floats(instance, origin, floats);
        } else if (instance.field() == kIdsPerSlotField) {
            // Taken for one id a slot it could fit by chance, and be predicted from wrong vectors.
            instance.fail("has ids_per_slot: only general ops take several ids a slot");
        } else {
            instance.skip();
        }
    }
}

// An instance as encoders write it, all ids and then all floats, each with a tag of its own. False
// when it is another, which may be as good.
bool copy_plain_instance(Bytes instance, CtrColumns columns, int64_t* ids, float* floats) {
    const uint8_t* at = instance.data();
    const uint8_t* end = at + instance.size();
    for (size_t i = 0; i < columns.slots; ++i) {
        uint64_t id;
        if (at == end || *at != kFieldOneVarint) return false;
        at = read_varint(at + kTagBytes, end, id);
        if (at == nullptr) return false;
        ids[i] = static_cast<int64_t>(id);
    }
    if (static_cast<size_t>(end - at) != columns.dense * kFloatFieldBytes) return false;
    unsigned other_tags = 0;
    for (size_t i = 0; i < columns.dense; ++i, at += kFloatFieldBytes) {
        other_tags |= *at ^ unsigned{kFieldTwoFixed32};
        std::memcpy(floats + i, at + kTagBytes, sizeof(float));
    }
    return other_tags == 0;
}

void require_count(size_t row, size_t found, const char* field, size_t expected) {
    if (found == expected) return;
    throw Error(ErrorKind::kWire, "instance " + std::to_string(row) + ": " + std::to_string(found) +
                                      " " + field + ", expected " + std::to_string(expected));
}

uint8_t* write_float(uint8_t* target, uint8_t tag, float value) {
    *target = tag;
    std::memcpy(target + kTagBytes, &value, sizeof value);
    return target + kFloatFieldBytes;
}

size_t instance_size(CtrColumns columns, const int64_t* ids) {
    size_t size = columns.dense * kFloatFieldBytes;
    for (size_t i = 0; i < columns.slots; ++i)
        size += kTagBytes + varint_size(static_cast<uint64_t>(ids[i]));
    return size;
}

void parse_prediction(ProtobufReader prediction, std::vector<float>& probabilities) {
    float pair[2] = {0, 0};
    bool present[2] = {false, false};
    while (prediction.next()) {
        const uint32_t field = prediction.field();
        if (prediction.wire_type() == WireType::kFixed32 && (field == 1 || field == 2)) {
            pair[field - 1] = std::bit_cast<float>(prediction.fixed32());
            present[field - 1] = true;
        } else {
            prediction.skip();
        }
    }
    if (!present[0] || !present[1]) prediction.fail("lacks prob0 or prob1");
    probabilities.insert(probabilities.end(), pair, pair + 2);
}

}  // namespace

size_t count_ctr_instances(Bytes payload, size_t rows_max) {
    ProtobufReader request(payload, "Request");
    size_t rows = 0;
    while (request.next()) {
        if (request.is(1, WireType::kBytes)) ++rows;
        request.skip();
    }
    if (rows > rows_max)
        throw Error(ErrorKind::kLimit, "the request has " + std::to_string(rows) +
                                           " instances, over rows_max " + std::to_string(rows_max));
    return rows;
}

void parse_ctr_request(Bytes payload, CtrColumns columns, int64_t* sparse_ids, float* dense_ids) {
    ProtobufReader request(payload, "Request");
    size_t row = 0;
    while (request.next()) {
        if (!request.is(1, WireType::kBytes)) {
            request.skip();
            continue;
        }
        const Bytes instance = request.bytes();
        Cells<int64_t> ids{sparse_ids + row * columns.slots, columns.slots};
        Cells<float> floats{dense_ids + row * columns.dense, columns.dense};
        if (!copy_plain_instance(instance, columns, ids.target, floats.target)) {
            parse_instance({instance, "CTRReqInstance", payload.data()}, payload.data(), ids,
                           floats);
            require_count(row, ids.count, "sparse_ids", columns.slots);
            require_count(row, floats.count, "dense_ids", columns.dense);
        }
        ++row;
    }
}

size_t ctr_request_size(size_t rows, CtrColumns columns, const int64_t* sparse_ids) {
    size_t size = 0;
    for (size_t row = 0; row < rows; ++row) {
        const size_t instance = instance_size(columns, sparse_ids + row * columns.slots);
        size += kTagBytes + varint_size(instance) + instance;
    }
    return size;
}

void encode_ctr_request(size_t rows, CtrColumns columns, const int64_t* sparse_ids,
                        const float* dense_ids, uint8_t* target) {
    for (size_t row = 0; row < rows; ++row) {
        const int64_t* ids = sparse_ids + row * columns.slots;
        const float* floats = dense_ids + row * columns.dense;
        *target++ = kFieldOneBytes;
        target = write_varint(target, instance_size(columns, ids));
        for (size_t i = 0; i < columns.slots; ++i) {
            *target++ = kFieldOneVarint;
            target = write_varint(target, static_cast<uint64_t>(ids[i]));
        }
        for (size_t i = 0; i < columns.dense; ++i)
            target = write_float(target, kFieldTwoFixed32, floats[i]);
    }
}

size_t ctr_response_size(size_t rows, int64_t err_code, std::string_view err_msg) {
    size_t size = rows * (2 * kTagBytes + kPredictionBytes);
    size += kTagBytes + varint_size(static_cast<uint64_t>(err_code));
    if (!err_msg.empty()) size += kTagBytes + varint_size(err_msg.size()) + err_msg.size();
    return size;
}

void encode_ctr_response(size_t rows, const float* probabilities, int64_t err_code,
                         std::string_view err_msg, uint8_t* target) {
    for (size_t row = 0; row < rows; ++row) {
        *target++ = kFieldOneBytes;
        *target++ = kPredictionBytes;
        target = write_float(target, kFieldOneFixed32, probabilities[2 * row]);
        target = write_float(target, kFieldTwoFixed32, probabilities[2 * row + 1]);
    }
    *target++ = kFieldTwoVarint;
    target = write_varint(target, static_cast<uint64_t>(err_code));
    if (err_msg.empty()) return;
    *target++ = kFieldThreeBytes;
    target = write_varint(target, err_msg.size());
    std::memcpy(target, err_msg.data(), err_msg.size());
}

CtrResponse parse_ctr_response(Bytes payload) {
    CtrResponse parsed;
    parsed.probabilities.reserve(payload.size() / (2 * kTagBytes + kPredictionBytes) * 2);
    bool has_err_code = false;
    ProtobufReader response(payload, "Response");
    while (response.next()) {
        if (response.is(1, WireType::kBytes)) {
            parse_prediction(response.nested("CTRResInstance"), parsed.probabilities);
        } else if (response.is(2, WireType::kVarint)) {
            parsed.err_code = static_cast<int64_t>(response.varint());
            has_err_code = true;
        } else if (response.is(3, WireType::kBytes)) {
            parsed.err_msg = as_text(response.bytes());
        } else {
            response.skip();
        }
    }
    if (!has_err_code) response.fail("lacks err_code");
    return parsed;
}

}  // namespace cube
