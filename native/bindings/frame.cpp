#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "bindings/bindings.hpp"
#include "bindings/python_frame.hpp"
#include "bindings/text.hpp"

PythonFrame::PythonFrame(const cube::Frame& frame, nb::object memory_view, const uint8_t* start)
    : fields(frame),
      service(frame.service),
      method(frame.method),
      error_text(frame.error_text),
      authentication(frame.authentication),
      buffer(std::move(memory_view)),
      payload_start(static_cast<size_t>(frame.payload.data() - start)),
      payload_end(payload_start + frame.payload.size()),
      attachment_end(payload_end + frame.attachment.size()) {}

bool FrameStream::next(cube::Frame& frame) {
    const cube::Bytes rest = data_.subspan(taken_);
    try {
        needed_ = cube::frame_size(rest, frame_bytes_max_);
        if (rest.size() < needed_) return false;
        frame = cube::parse_frame(rest.first(needed_));
    } catch (const cube::Error&) {
        if (taken_ == 0) throw;
        needed_ = std::min(cube::kFrameHeadBytes, rest.size());
        return false;
    }
    taken_ += needed_;
    needed_ = cube::kFrameHeadBytes;
    return true;
}

nb::object byte_view(nb::handle data) {
    nb::object view = nb::steal(PyMemoryView_FromObject(data.ptr()));
    if (!view.is_valid()) nb::raise_python_error();
    if (PyMemoryView_GET_BUFFER(view.ptr())->itemsize != 1)
        throw nb::type_error("frames are parsed from bytes, or a memoryview of bytes");
    return view;
}

namespace {

constexpr size_t kReleaseBytesMin = size_t{64} << 10;

nb::object slice_of(const PythonFrame& frame, size_t start, size_t end) {
    return frame.buffer[nb::slice(static_cast<Py_ssize_t>(start), static_cast<Py_ssize_t>(end),
                                  Py_ssize_t{1})];
}

nb::tuple parse_frames(nb::handle data, const BufferView& buffer, size_t frame_bytes_max) {
    FrameStream stream(buffer.bytes(), frame_bytes_max);
    nb::list frames;
    nb::object view;
    cube::Frame frame;
    while (stream.next(frame)) {
        if (!view.is_valid()) view = byte_view(data);
        frames.append(PythonFrame(frame, view, buffer.bytes().data()));
    }
    return nb::make_tuple(frames, stream.taken(), stream.needed());
}

nb::bytes empty_bytes(size_t size) {
    PyObject* bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (bytes == nullptr) nb::raise_python_error();
    return nb::steal<nb::bytes>(bytes);
}

uint8_t* writable(const nb::bytes& bytes) {
    return reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(bytes.ptr()));
}

nb::bytes encode_request_frame(std::string_view service, std::string_view method,
                               int64_t correlation_id, const BufferView& payload,
                               const BufferView& attachment, int32_t timeout_ms, int64_t log_id) {
    const std::string head = cube::encode_request_head(
        {service, method, correlation_id, timeout_ms, log_id}, payload.size(), attachment.size());
    nb::bytes frame = empty_bytes(head.size() + payload.size() + attachment.size());
    uint8_t* at = std::copy(head.begin(), head.end(), writable(frame));
    at = std::ranges::copy(payload.bytes(), at).out;
    std::ranges::copy(attachment.bytes(), at);
    return frame;
}

nb::bytes encode_response_frame(int64_t correlation_id, const BufferView& payload,
                                const BufferView& attachment) {
    nb::bytes frame = empty_bytes(cube::response_head_size(correlation_id, attachment.size()) +
                                  payload.size() + attachment.size());
    uint8_t* at = cube::write_response_head(writable(frame), correlation_id, payload.size(),
                                            attachment.size());
    // New memory, that is given page by page as it is written: megabytes take milliseconds.
    std::optional<nb::gil_scoped_release> released;
    if (payload.size() + attachment.size() >= kReleaseBytesMin) released.emplace();
    at = std::ranges::copy(payload.bytes(), at).out;
    std::ranges::copy(attachment.bytes(), at);
    released.reset();
    return frame;
}

nb::bytes encode_error_frame(int64_t correlation_id, int32_t error_code,
                             std::string_view error_text) {
    const std::string frame = cube::encode_error_frame(correlation_id, error_code, error_text);
    return nb::bytes(frame.data(), frame.size());
}

}  // namespace

void bind_frame(nb::module_& m) {
    nb::class_<PythonFrame>(m, "Frame", nb::is_final())
        .def_prop_ro("correlation_id", [](const PythonFrame& f) { return f.fields.correlation_id; })
        .def_prop_ro("service", [](const PythonFrame& f) { return text_of(f.service); })
        .def_prop_ro("method", [](const PythonFrame& f) { return text_of(f.method); })
        .def_prop_ro("is_request", [](const PythonFrame& f) { return f.fields.is_request; })
        .def_prop_ro("timeout_ms", [](const PythonFrame& f) { return f.fields.timeout_ms; })
        .def_prop_ro("log_id", [](const PythonFrame& f) { return f.fields.log_id; })
        .def_prop_ro("compress_type", [](const PythonFrame& f) { return f.fields.compress_type; })
        .def_prop_ro("error_code", [](const PythonFrame& f) { return f.fields.error_code; })
        .def_prop_ro("error_text", [](const PythonFrame& f) { return text_of(f.error_text); })
        .def_prop_ro("authentication",
                     [](const PythonFrame& f) { return text_of(f.authentication); })
        .def_prop_ro(
            "payload",
            [](const PythonFrame& f) { return slice_of(f, f.payload_start, f.payload_end); })
        .def_prop_ro(
            "attachment",
            [](const PythonFrame& f) { return slice_of(f, f.payload_end, f.attachment_end); })
        .def_prop_ro("fault", [](const PythonFrame& f) { return text_of(f.fields.fault); });

    m.def(
        "parse_frames",
        [](nb::handle data, size_t frame_bytes_max) {
            BufferView buffer;
            if (!buffer.acquire(data.ptr()))
                throw nb::type_error("parse_frames: data must be bytes or a contiguous memoryview");
            return parse_frames(data, buffer, frame_bytes_max);
        },
        nb::arg("data"), nb::arg("frame_bytes_max"),
        nb::sig("def parse_frames(data: bytes | memoryview, frame_bytes_max: int) -> "
                "tuple[list[Frame], int, int]"));
    m.def("next_correlation_id", &cube::next_correlation_id);
    m.def("encode_request_frame", &encode_request_frame, nb::arg("service"), nb::arg("method"),
          nb::arg("correlation_id"), nb::arg("payload"), nb::kw_only(),
          nb::arg("attachment") = nb::bytes("", 0), nb::arg("timeout_ms") = 0,
          nb::arg("log_id") = 0);
    m.def("encode_response_frame", &encode_response_frame, nb::arg("correlation_id"),
          nb::arg("payload"), nb::kw_only(), nb::arg("attachment") = nb::bytes("", 0));
    m.def("encode_error_frame", &encode_error_frame, nb::arg("correlation_id"),
          nb::arg("error_code"), nb::arg("error_text"));
}
