#include "kernels/crc32c.hpp"
#include "kernels/protobuf.hpp"
#include "kernels/varint.hpp"
#include "tests/check.hpp"

namespace cube::tests {

TEST(varints_come_back) {
    Random random(1);
    for (int round = 0; round < 100000; ++round) {
        const uint64_t value = random.key();
        std::vector<uint8_t> bytes(varint_size(value) + random.below(12), 0xff);
        CHECK(write_varint(bytes.data(), value) == bytes.data() + varint_size(value));
        const ExactBytes exact(bytes);
        uint64_t read = ~value;
        const uint8_t* begin = exact.span().data();
        CHECK(read_varint(begin, begin + bytes.size(), read) == begin + varint_size(value));
        CHECK(read == value);
    }
}

TEST(both_ways_of_reading_a_varint_agree) {
    Random random(2);
    for (int round = 0; round < 200000; ++round) {
        std::vector<uint8_t> bytes = random.bytes(random.below(14));
        for (uint8_t& byte : bytes)
            if (random.below(3) != 0) byte |= 0x80;
        const ExactBytes exact(bytes);
        const uint8_t* begin = exact.span().data();
        uint64_t one = 0;
        uint64_t other = 0;
        const uint8_t* one_end = read_varint(begin, begin + bytes.size(), one);
        CHECK(one_end == read_varint_checked(begin, begin + bytes.size(), other));
        CHECK(one == other);
    }
}

TEST(a_varint_over_64_bits_is_refused) {
    const std::vector<uint8_t> most(9, 0xff);
    for (const uint8_t last : {0x00, 0x01, 0x02, 0x7f, 0x80}) {
        std::vector<uint8_t> bytes = most;
        bytes.push_back(last);
        uint64_t value;
        const bool read = read_varint(bytes.data(), bytes.data() + bytes.size(), value) != nullptr;
        CHECK(read == (last <= 1));
    }
}

TEST(crc32c_of_the_reference_text) {
    CHECK(crc32c(0, "123456789", 9) == 0xe3069283);
    CHECK(crc32c_portable(0, "123456789", 9) == 0xe3069283);
    CHECK(crc32c(0, nullptr, 0) == 0);
}

TEST(crc32c_is_the_same_in_pieces_and_without_the_instruction) {
    Random random(3);
    const std::vector<uint8_t> bytes = random.bytes(100000);
    for (int round = 0; round < 300; ++round) {
        const size_t begin = random.below(64);
        const size_t size = random.below(bytes.size() - begin);
        const size_t cut = random.below(size + 1);
        const uint32_t whole = crc32c(0, &bytes[begin], size);
        CHECK(whole == crc32c_portable(0, &bytes[begin], size));
        CHECK(whole == crc32c(crc32c(0, &bytes[begin], cut), &bytes[begin] + cut, size - cut));
    }
}

TEST(unknown_fields_of_every_wire_type_are_skipped) {
    const std::vector<uint8_t> message = {0x58, 0x96, 0x01,  // 11: varint
                                          0x61, 1,    2,    3,    4,    5,
                                          6,    7,    8,                       // 12: fixed64
                                          0x6a, 0x02, 9,    9,                 // 13: bytes
                                          0x73, 0x73, 0x74, 0x08, 0x01, 0x74,  // 14: groups
                                          0x7d, 1,    2,    3,    4,           // 15: fixed32
                                          0x08, 0x05};
    ProtobufReader reader(message, "message");
    uint64_t found = 0;
    while (reader.next()) {
        if (reader.is(1, WireType::kVarint)) {
            found = reader.varint();
        } else {
            reader.skip();
        }
    }
    CHECK(found == 5);
}

TEST(skipping_is_tame) {
    const std::vector<std::vector<uint8_t>> valid = {
        {0x58, 0x96, 0x01, 0x61, 1, 2, 3, 4, 5, 6, 7, 8, 0x6a, 0x02, 9, 9},
        {0x73, 0x73, 0x08, 0x01, 0x74, 0x74, 0x7d, 1, 2, 3, 4, 0x08, 0x05},
        std::vector<uint8_t>(5000, 0x0b)};
    expect_tamed(valid, ErrorKind::kWire, 4, [](Bytes bytes) {
        ProtobufReader reader(bytes, "message");
        while (reader.next()) reader.skip();
    });
}

TEST(an_error_names_message_and_offset) {
    const std::vector<uint8_t> message = {0x08, 0x05, 0x12, 0x7f};
    const Error error = error_of([&] {
        ProtobufReader reader(message, "Thing");
        while (reader.next()) reader.skip();
    });
    CHECK(std::string(error.what()) == "Thing has a length that reaches over its end (offset 4)");
}

}  // namespace cube::tests
