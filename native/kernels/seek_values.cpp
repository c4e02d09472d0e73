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

// The end of a value at `at` in the form that servers write it, which needs no general walk;
// nullptr when it has another.
const uint8_t* take_plain(const uint8_t* at, const uint8_t* end, SeekValue& target) {
    if (static_cast<size_t>(end - at) < sizeof(kMissingValue)) return nullptr;
    if (std::memcmp(at, kMissingValue, sizeof(kMissingValue)) == 0) {
        target = {Bytes(), kStatusMissing};
        return at + sizeof(kMissingValue);
    }
    uint64_t message_bytes = 0, value_bytes = 0;
    if (*at != 0x0a) return nullptr;
    const uint8_t* const message = read_varint(at + 1, end, message_bytes);
    if (message == nullptr || message_bytes > static_cast<uint64_t>(end - message) ||
        message_bytes < 4 || message[0] != 0x08 || message[1] != 0x00 || message[2] != 0x12)
        return nullptr;
    const uint8_t* const message_end = message + message_bytes;
    const uint8_t* const value = read_varint(message + 3, message_end, value_bytes);
    if (value == nullptr || value_bytes != static_cast<uint64_t>(message_end - value))
        return nullptr;
    target = {{value, static_cast<size_t>(value_bytes)}, kStatusFound};
    return message_end;
}

class ValuesDecoder {
  public:
    ValuesDecoder(Bytes body, std::span<const uint32_t> positions, std::span<SeekValue> values)
        : body_(body), positions_(positions), values_(values) {}

    SeekVersion decode() {
        const uint8_t* at = body_.data();
        const uint8_t* const end = at + body_.size();
        for (;;) {
            at = take_plain_ones(at, end);
            if (at == end) break;
            ProtobufReader reader({at, end}, kResponseName, body_.data());
            reader.next();
            parse_field(reader);
            at = body_.data() + reader.offset();
        }
        if (decoded_ != positions_.size()) fail_as_miscounted(decoded_, positions_.size());
        return version_;
    }

  private:
    const uint8_t* take_plain_ones(const uint8_t* at, const uint8_t* end) {
        while (decoded_ < positions_.size()) {
            const uint8_t* after = take_plain(at, end, values_[positions_[decoded_]]);
            if (after == nullptr) break;
            ++decoded_;
            at = after;
        }
        return at;
    }
    void parse_field(ProtobufReader& reader) {
        if (reader.is(1, WireType::kBytes)) {
            const DictValue value = parse_dict_value(reader.nested("DictResponse: value"));
            if (decoded_ == positions_.size())
                reader.fail("has more values than the " + std::to_string(positions_.size()) +
                            " keys asked for");
            values_[positions_[decoded_++]] = value.status == 0
                                                  ? SeekValue{value.value, kStatusFound}
                                                  : SeekValue{Bytes(), kStatusMissing};
        } else if (reader.is(2, WireType::kBytes)) {
            version_ = {true, as_text(reader.bytes())};
        } else {
            reader.skip();
        }
    }

    Bytes body_;
    std::span<const uint32_t> positions_;
    std::span<SeekValue> values_;
    SeekVersion version_;
    size_t decoded_ = 0;
};

}  // namespace

SeekVersion decode_seek_values(Bytes body, std::span<const uint32_t> positions,
                               std::span<SeekValue> values) {
    return ValuesDecoder(body, positions, values).decode();
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
