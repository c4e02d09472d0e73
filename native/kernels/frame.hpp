#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/protobuf.hpp"

namespace cube {

// baidu_std: "PRPC", u32be body size, u32be meta size, RpcMeta, payload, attachment.
inline constexpr size_t kFrameHeadBytes = 12;

inline constexpr int kErrorNoMethod = 1002;
inline constexpr int kErrorRequest = 1003;
inline constexpr int kErrorInternal = 2001;
inline constexpr int kErrorLimit = 2004;

// Views into the parsed bytes.
struct Frame {
    bool is_request = false;
    std::string_view service;
    std::string_view method;
    int64_t correlation_id = 0;
    int64_t log_id = 0;
    int32_t timeout_ms = 0;
    int32_t compress_type = 0;
    int32_t error_code = 0;
    std::string_view error_text;
    std::string_view authentication;
    Bytes payload;
    Bytes attachment;
    // Why the frame cannot be used although the stream is intact; empty when it can.
    std::string fault;
};

// Bytes of the frame that `data` begins with, kFrameHeadBytes until its head is there. Throws
// Error(kWire) when it is no frame, or its body is over `body_bytes_max`.
size_t frame_size(Bytes data, size_t body_bytes_max);

// Parses a frame that is all there (`frame_size` bytes). Throws Error(kWire) on a meta that does
// not parse.
Frame parse_frame(Bytes frame);

struct RequestHead {
    std::string_view service;
    std::string_view method;
    int64_t correlation_id = 0;
    int32_t timeout_ms = 0;
    int64_t log_id = 0;
};

// A correlation id that no other request of this process has. Thread-safe.
int64_t next_correlation_id();

// Everything of a request frame that goes before its payload. Throws Error(kLimit) when the body
// does not fit the frame's 32-bit size.
std::string encode_request_head(const RequestHead& head, size_t payload_size,
                                size_t attachment_size);

// The same of a successful response, for a caller that has the room: `response_head_size` bytes.
size_t response_head_size(int64_t correlation_id, size_t attachment_size);
uint8_t* write_response_head(uint8_t* target, int64_t correlation_id, size_t payload_size,
                             size_t attachment_size);

// A response frame with meta only, as brpc sends errors.
std::string encode_error_frame(int64_t correlation_id, int32_t error_code,
                               std::string_view error_text);

}  // namespace cube
