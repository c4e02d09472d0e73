#include "kernels/frame.hpp"

#include <algorithm>
#include <atomic>
#include <limits>

namespace cube {

namespace {

constexpr std::string_view kMagic = "PRPC";

[[noreturn]] void fail(const std::string& problem) { throw Error(ErrorKind::kWire, problem); }

uint32_t load_u32be(const uint8_t* at) {
    return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | uint32_t{at[3]};
}

uint8_t* write_u32be(uint8_t* target, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) *target++ = static_cast<uint8_t>(value >> shift);
    return target;
}

void parse_request_meta(ProtobufReader meta, Frame& frame) {
    bool has_service = false;
    bool has_method = false;
    while (meta.next()) {
        if (meta.is(1, WireType::kBytes)) {
            frame.service = as_text(meta.bytes());
            has_service = true;
        } else if (meta.is(2, WireType::kBytes)) {
            frame.method = as_text(meta.bytes());
            has_method = true;
        } else if (meta.is(3, WireType::kVarint)) {
            frame.log_id = static_cast<int64_t>(meta.varint());
        } else if (meta.is(8, WireType::kVarint)) {
            frame.timeout_ms = static_cast<int32_t>(meta.varint());
        } else {
            meta.skip();
        }
    }
    if (!has_service || !has_method) meta.fail("lacks its service or method name");
    frame.is_request = true;
}

void parse_response_meta(ProtobufReader meta, Frame& frame) {
    while (meta.next()) {
        if (meta.is(1, WireType::kVarint)) {
            frame.error_code = static_cast<int32_t>(meta.varint());
        } else if (meta.is(2, WireType::kBytes)) {
            frame.error_text = as_text(meta.bytes());
        } else {
            meta.skip();
        }
    }
}

// Returns attachment_size.
int32_t parse_meta(ProtobufReader meta, Frame& frame) {
    int32_t attachment_size = 0;
    while (meta.next()) {
        if (meta.is(1, WireType::kBytes)) {
            parse_request_meta(meta.nested("frame meta: request"), frame);
        } else if (meta.is(2, WireType::kBytes)) {
            parse_response_meta(meta.nested("frame meta: response"), frame);
        } else if (meta.is(3, WireType::kVarint)) {
            frame.compress_type = static_cast<int32_t>(meta.varint());
        } else if (meta.is(4, WireType::kVarint)) {
            frame.correlation_id = static_cast<int64_t>(meta.varint());
        } else if (meta.is(5, WireType::kVarint)) {
            attachment_size = static_cast<int32_t>(meta.varint());
        } else if (meta.is(7, WireType::kBytes)) {
            frame.authentication = as_text(meta.bytes());
        } else {
            meta.skip();
        }
    }
    return attachment_size;
}

uint32_t checked_body_size(size_t meta_size, size_t payload_size, size_t attachment_size) {
    const size_t size = meta_size + payload_size + attachment_size;
    if (size > std::numeric_limits<uint32_t>::max())
        throw Error(ErrorKind::kLimit, "a frame body of " + std::to_string(size) +
                                           " bytes is over the 32-bit size of baidu_std");
    return static_cast<uint32_t>(size);
}

uint8_t* write_frame_head(uint8_t* target, size_t meta_size, size_t payload_size,
                          size_t attachment_size) {
    const uint32_t body_size = checked_body_size(meta_size, payload_size, attachment_size);
    target = std::copy(kMagic.begin(), kMagic.end(), target);
    target = write_u32be(target, body_size);
    return write_u32be(target, static_cast<uint32_t>(meta_size));
}

uint8_t* write_tagged(uint8_t* target, uint8_t tag, uint64_t value) {
    *target++ = tag;
    return write_varint(target, value);
}

void append_tagged(std::string& target, uint8_t tag, uint64_t value) {
    uint8_t bytes[1 + kVarintBytesMax];
    target.append(reinterpret_cast<char*>(bytes),
                  static_cast<size_t>(write_tagged(bytes, tag, value) - bytes));
}

void append_text(std::string& target, uint8_t tag, std::string_view text) {
    append_tagged(target, tag, text.size());
    target.append(text);
}

std::string with_frame_head(const std::string& meta, size_t payload_size, size_t attachment_size) {
    uint8_t head[kFrameHeadBytes];
    write_frame_head(head, meta.size(), payload_size, attachment_size);
    return std::string(reinterpret_cast<char*>(head), kFrameHeadBytes) + meta;
}

// response{error_code 0}, compress_type 0.
constexpr uint8_t kSuccessMeta[] = {0x12, 0x02, 0x08, 0x00, 0x18, 0x00};

}  // namespace

size_t frame_size(Bytes data, size_t body_bytes_max) {
    const size_t magic_size = std::min(data.size(), kMagic.size());
    if (as_text(data.first(magic_size)) != kMagic.substr(0, magic_size))
        fail("frame does not begin with PRPC (offset 0)");
    if (data.size() < kFrameHeadBytes) return kFrameHeadBytes;
    const size_t body_size = load_u32be(data.data() + 4);
    const size_t meta_size = load_u32be(data.data() + 8);
    if (body_size > body_bytes_max)
        fail("frame body of " + std::to_string(body_size) + " bytes is over frame_bytes_max " +
             std::to_string(body_bytes_max) + " (offset 4)");
    if (meta_size > body_size)
        fail("frame meta of " + std::to_string(meta_size) + " bytes is larger than its body of " +
             std::to_string(body_size) + " (offset 8)");
    return kFrameHeadBytes + body_size;
}

Frame parse_frame(Bytes data) {
    const size_t meta_size = load_u32be(data.data() + 8);
    Frame frame;
    const int32_t attachment_size = parse_meta(
        ProtobufReader(data.subspan(kFrameHeadBytes, meta_size), "frame meta", data.data()), frame);
    const Bytes rest = data.subspan(kFrameHeadBytes + meta_size);
    frame.payload = rest;
    if (attachment_size < 0 || static_cast<size_t>(attachment_size) > rest.size()) {
        frame.fault = "attachment_size=" + std::to_string(attachment_size) +
                      " is larger than request_size=" + std::to_string(rest.size());
        return frame;
    }
    frame.payload = rest.first(rest.size() - static_cast<size_t>(attachment_size));
    frame.attachment = rest.last(static_cast<size_t>(attachment_size));
    return frame;
}

int64_t next_correlation_id() {
    static std::atomic<int64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

std::string encode_request_head(const RequestHead& head, size_t payload_size,
                                size_t attachment_size) {
    std::string request;
    append_text(request, 0x0a, head.service);
    append_text(request, 0x12, head.method);
    if (head.log_id != 0) append_tagged(request, 0x18, static_cast<uint64_t>(head.log_id));
    if (head.timeout_ms > 0) append_tagged(request, 0x40, static_cast<uint64_t>(head.timeout_ms));
    std::string meta;
    append_text(meta, 0x0a, request);
    append_tagged(meta, 0x18, 0);
    append_tagged(meta, 0x20, static_cast<uint64_t>(head.correlation_id));
    if (attachment_size > 0) append_tagged(meta, 0x28, attachment_size);
    return with_frame_head(meta, payload_size, attachment_size);
}

size_t response_head_size(int64_t correlation_id, size_t attachment_size) {
    return kFrameHeadBytes + sizeof(kSuccessMeta) + 1 +
           varint_size(static_cast<uint64_t>(correlation_id)) +
           (attachment_size > 0 ? 1 + varint_size(attachment_size) : 0);
}

uint8_t* write_response_head(uint8_t* target, int64_t correlation_id, size_t payload_size,
                             size_t attachment_size) {
    const size_t meta_size = response_head_size(correlation_id, attachment_size) - kFrameHeadBytes;
    target = write_frame_head(target, meta_size, payload_size, attachment_size);
    target = std::copy(std::begin(kSuccessMeta), std::end(kSuccessMeta), target);
    target = write_tagged(target, 0x20, static_cast<uint64_t>(correlation_id));
    return attachment_size > 0 ? write_tagged(target, 0x28, attachment_size) : target;
}

std::string encode_error_frame(int64_t correlation_id, int32_t error_code,
                               std::string_view error_text) {
    std::string response;
    append_tagged(response, 0x08, static_cast<uint64_t>(int64_t{error_code}));
    append_text(response, 0x12, error_text);
    std::string meta;
    append_text(meta, 0x12, response);
    append_tagged(meta, 0x18, 0);
    append_tagged(meta, 0x20, static_cast<uint64_t>(correlation_id));
    return with_frame_head(meta, 0, 0);
}

}  // namespace cube
