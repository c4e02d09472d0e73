#include "kernels/protobuf.hpp"

namespace cube {

namespace {
constexpr int kGroupDepthMax = 32;
}

void ProtobufReader::fail(const std::string& problem) const {
    throw Error(ErrorKind::kWire,
                std::string(name_) + " " + problem + " (offset " + std::to_string(offset()) + ")");
}

void ProtobufReader::skip_value(int depth) {
    switch (wire_type_) {
        case WireType::kVarint:
            varint();
            return;
        case WireType::kFixed64:
            take_fixed(8);
            return;
        case WireType::kBytes:
            bytes();
            return;
        case WireType::kFixed32:
            take_fixed(4);
            return;
        case WireType::kGroup: {
            if (depth == kGroupDepthMax) fail("nests groups too deeply");
            const uint32_t group = field_;
            while (next()) {
                if (wire_type_ == WireType::kEndGroup) {
                    if (field_ != group) fail("ends another group than it began");
                    return;
                }
                skip_value(depth + 1);
            }
            fail("ends inside a group");
        }
        default:
            fail("has a field of an unknown wire type");
    }
}

}  // namespace cube
