#include "kernels/dict_value.hpp"

namespace cube {

DictValue parse_dict_value(ProtobufReader reader) {
    DictValue value;
    bool has_status = false;
    bool has_value = false;
    while (reader.next()) {
        if (reader.is(1, WireType::kVarint)) {
            value.status = static_cast<uint32_t>(reader.varint());
            has_status = true;
        } else if (reader.is(2, WireType::kBytes)) {
            value.value = reader.bytes();
            has_value = true;
        } else {
            reader.skip();
        }
    }
    if (!has_status || !has_value) reader.fail("lacks its status or value");
    if (value.status != 0 && value.status != kStatusOnWireMissing)
        reader.fail("has the unknown status " + std::to_string(value.status));
    return value;
}

}  // namespace cube
