#include "kernels/seek_request.hpp"

#include <string>

namespace cube {

namespace {

constexpr uint8_t kUnpackedKeyTag = 0x08;

// Keys come one after the other, each with its tag: read without the general walk.
const uint8_t* read_unpacked_keys(const uint8_t* at, const uint8_t* end, size_t keys_room,
                                  std::vector<uint64_t>& keys) {
    while (at != end && *at == kUnpackedKeyTag && keys_room-- > 0) {
        uint64_t key;
        const uint8_t* after = read_varint(at + 1, end, key);
        if (after == nullptr) return at;  // the general walk says what is wrong
        keys.push_back(key);
        at = after;
    }
    return at;
}

class SeekRequestParser {
  public:
    SeekRequestParser(Bytes payload, size_t keys_max, std::vector<uint64_t>& keys)
        : payload_(payload), keys_max_(keys_max), keys_(keys), keys_before_(keys.size()) {}

    SeekRequest parse() {
        const uint8_t* end = payload_.data() + payload_.size();
        const uint8_t* at = payload_.data();
        while (at != end) {
            at = read_unpacked_keys(at, end, keys_max_ - count(), keys_);
            if (at == end) break;
            ProtobufReader reader({at, end}, "DictRequest", payload_.data());
            reader.next();
            parse_field(reader);
            at = payload_.data() + reader.offset();
        }
        request_.key_count = count();
        return request_;
    }

  private:
    size_t count() const { return keys_.size() - keys_before_; }
    void append(uint64_t key) {
        if (count() == keys_max_)
            throw Error(ErrorKind::kLimit, "DictRequest has more keys than keys_per_request_max " +
                                               std::to_string(keys_max_) +
                                               ": ask for them in several requests");
        keys_.push_back(key);
    }
    void parse_field(ProtobufReader& reader) {
        if (reader.is(1, WireType::kVarint)) {
            append(reader.varint());
        } else if (reader.is(1, WireType::kBytes)) {
            parse_packed_keys(reader);
        } else if (reader.is(2, WireType::kVarint)) {
            request_.version_required = reader.varint() != 0;
        } else if (reader.is(3, WireType::kBytes)) {
            request_.version = as_text(reader.bytes());
            request_.has_version = true;
        } else if (reader.is(4, WireType::kBytes)) {
            request_.dict_name = as_text(reader.bytes());
            request_.has_dict_name = true;
        } else {
            reader.skip();
        }
    }
    void parse_packed_keys(ProtobufReader& reader) {
        ProtobufReader packed = reader.nested("DictRequest: packed keys");
        while (!packed.at_end()) append(packed.varint());
    }

    Bytes payload_;
    size_t keys_max_;
    std::vector<uint64_t>& keys_;
    size_t keys_before_;
    SeekRequest request_;
};

}  // namespace

SeekRequest parse_seek_request(Bytes payload, size_t keys_max, std::vector<uint64_t>& keys) {
    return SeekRequestParser(payload, keys_max, keys).parse();
}

}  // namespace cube
