#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "kernels/frame.hpp"

namespace nb = nanobind;

// A frame as Python sees it: names are its own, payload and attachment are slices of `buffer`.
struct PythonFrame {
    PythonFrame(const cube::Frame& frame, nb::object memory_view, const uint8_t* start);

    // Valid as long as this is.
    cube::Bytes payload() const {
        const auto* start = static_cast<const uint8_t*>(PyMemoryView_GET_BUFFER(buffer.ptr())->buf);
        return {start + payload_start, payload_end - payload_start};
    }

    cube::Frame fields;  // its views are not used once constructed
    std::string service;
    std::string method;
    std::string error_text;
    std::string authentication;
    nb::object buffer;
    size_t payload_start;
    size_t payload_end;
    size_t attachment_end;
};

// The frames at the start of a buffer, one by one: what parse_frames and Seeker.serve share.
class FrameStream {
  public:
    FrameStream(cube::Bytes data, size_t frame_bytes_max)
        : data_(data), frame_bytes_max_(frame_bytes_max) {}

    // False when no further frame is complete, or when what follows good frames is none: the call
    // that begins there raises.
    bool next(cube::Frame& frame);
    size_t taken() const { return taken_; }
    // Bytes needed from `taken` on for the next frame.
    size_t needed() const { return needed_; }

  private:
    cube::Bytes data_;
    size_t frame_bytes_max_;
    size_t taken_ = 0;
    size_t needed_ = cube::kFrameHeadBytes;
};

// A memoryview of bytes over `data`, for slicing.
nb::object byte_view(nb::handle data);
