#include "kernels/seek_values.hpp"

#include <cstring>
#include <string>

#include "kernels/dict_value.hpp"

namespace cube {

namespace {

constexpr const char* kResponseName = "DictResponse";

[[noreturn]] void fail_as_miscounted(size_t found, size_t asked) {
    throw Error(ErrorKind::kWire, std::string(kResponseName) + " has " + std::to_string(found) +
                                      " values for " + std::to_string(asked) + " keys");
}

}  // namespace

SeekVersion decode_seek_values(Bytes body, std::span<const uint32_t> positions,
                               std::span<SeekValue> values) {
    SeekVersion version;
    size_t decoded = 0;
    ProtobufReader reader(body, kResponseName);
    while (reader.next()) {
        if (reader.is(1, WireType::kBytes)) {
            const DictValue value = parse_dict_value(reader.nested("DictResponse: value"));
            if (decoded == positions.size())
                reader.fail("has more values than the " + std::to_string(positions.size()) +
                            " keys asked for");
            SeekValue& target = values[positions[decoded++]];
            target.status = value.status == 0 ? kStatusFound : kStatusMissing;
            target.value = value.status == 0 ? value.value : Bytes();
        } else if (reader.is(2, WireType::kBytes)) {
            version = {true, as_text(reader.bytes())};
        } else {
            reader.skip();
        }
    }
    if (decoded != positions.size()) fail_as_miscounted(decoded, positions.size());
    return version;
}

size_t sum_up_values(std::span<const SeekValue> values, int64_t* offsets, int32_t* status) {
    size_t bytes = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        offsets[i] = static_cast<int64_t>(bytes);
        status[i] = values[i].status;
        bytes += values[i].value.size();
    }
    offsets[values.size()] = static_cast<int64_t>(bytes);
    return bytes;
}

void copy_values(std::span<const SeekValue> values, uint8_t* target) {
    for (const SeekValue& each : values) {
        if (each.value.empty()) continue;
        std::memcpy(target, each.value.data(), each.value.size());
        target += each.value.size();
    }
}

}  // namespace cube
