#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "kernels/error.hpp"
#include "kernels/varint.hpp"

namespace cube {

using Bytes = std::span<const uint8_t>;

inline std::string_view as_text(Bytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

enum class WireType : uint8_t {
    kVarint = 0,
    kFixed64 = 1,
    kBytes = 2,
    kGroup = 3,
    kEndGroup = 4,
    kFixed32 = 5
};

// Walks the fields of one protobuf message. Every fault is an Error(kWire) that names the message
// and the offset of the byte where it was found.
class ProtobufReader {
  public:
    // `origin` is what offsets count from (the start of the outermost message); `name` must be a
    // literal.
    ProtobufReader(Bytes message, const char* name, const uint8_t* origin)
        : at_(message.data()),
          end_(message.data() + message.size()),
          origin_(origin),
          name_(name) {}
    ProtobufReader(Bytes message, const char* name)
        : ProtobufReader(message, name, message.data()) {}

    // Reads the next tag; false at the end of the message.
    bool next() {
        if (at_ == end_) return false;
        uint64_t tag = varint();
        field_ = static_cast<uint32_t>(tag >> 3);
        wire_type_ = static_cast<WireType>(tag & 7);
        if (tag >> 32 != 0 || field_ == 0) fail("has a tag that is no field");
        return true;
    }
    bool at_end() const { return at_ == end_; }
    uint32_t field() const { return field_; }
    WireType wire_type() const { return wire_type_; }
    bool is(uint32_t field, WireType type) const { return field_ == field && wire_type_ == type; }

    uint64_t varint() {
        uint64_t value;
        const uint8_t* after = read_varint(at_, end_, value);
        if (after == nullptr) fail("has a varint that is cut off or over 64 bits");
        at_ = after;
        return value;
    }
    Bytes bytes() {
        const uint64_t size = varint();
        if (size > static_cast<uint64_t>(end_ - at_))
            fail("has a length that reaches over its end");
        return take(static_cast<size_t>(size));
    }
    uint32_t fixed32() {
        uint32_t value;
        std::memcpy(&value, take_fixed(4).data(), 4);
        return value;
    }
    uint64_t fixed64() {
        uint64_t value;
        std::memcpy(&value, take_fixed(8).data(), 8);
        return value;
    }
    // Skips the value of a field that is not known.
    void skip() { skip_value(0); }

    ProtobufReader nested(const char* name) { return {bytes(), name, origin_}; }
    size_t offset() const { return static_cast<size_t>(at_ - origin_); }
    [[noreturn]] void fail(const std::string& problem) const;

  private:
    Bytes take(size_t size) {
        Bytes taken{at_, size};
        at_ += size;
        return taken;
    }
    Bytes take_fixed(size_t size) {
        if (static_cast<size_t>(end_ - at_) < size) fail("is cut off inside a fixed-width value");
        return take(size);
    }
    void skip_value(int depth);

    const uint8_t* at_;
    const uint8_t* end_;
    const uint8_t* origin_;
    const char* name_;
    uint32_t field_ = 0;
    WireType wire_type_ = WireType::kVarint;
};

}  // namespace cube
