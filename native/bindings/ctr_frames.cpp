#include "kernels/ctr_frames.hpp"

#include <stdexcept>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/output_bytes.hpp"
#include "bindings/python_frame.hpp"

namespace {

constexpr int64_t kColumnsMax = 65536;

using cube::CtrFrames;

template <class T>
using View = nb::ndarray<nb::numpy, T, nb::c_contig>;

struct TakeLimits {
    size_t requests;
    size_t rows;
    size_t payload_bytes;
    size_t frame_bytes;
};

nb::tuple take_frames(nb::handle data, const BufferView& buffer, cube::CtrColumns columns,
                      const TakeLimits& limits) {
    FrameStream stream(buffer.bytes(), limits.frame_bytes);
    CtrFrames taken(columns);
    nb::list others;
    nb::object view;
    cube::Frame frame;
    size_t taken_bytes = 0;
    size_t needed_bytes = cube::kFrameHeadBytes;
    while (taken.requests().size() < limits.requests) {
        const bool whole = stream.next(frame);
        needed_bytes = stream.needed();
        if (!whole) break;
        const bool plain =
            cube::is_plain_inference(frame) && frame.payload.size() <= limits.payload_bytes;
        const auto added = plain ? taken.add(frame, limits.rows) : CtrFrames::Added::kRefused;
        if (added == CtrFrames::Added::kFull) break;
        taken_bytes = stream.taken();
        if (added == CtrFrames::Added::kYes) continue;
        if (!view.is_valid()) view = byte_view(data);
        others.append(PythonFrame(frame, view, buffer.bytes().data()));
    }
    nb::object requests = nb::none();
    if (!taken.requests().empty()) requests = nb::cast(std::move(taken));
    return nb::make_tuple(requests, others, taken_bytes, needed_bytes);
}

nb::tuple take(nb::handle data, int64_t slots, int64_t dense, size_t requests_max, size_t rows_max,
               size_t payload_bytes_max, size_t frame_bytes_max) {
    const auto in_range = [](int64_t columns) { return columns >= 0 && columns <= kColumnsMax; };
    if (!in_range(slots) || !in_range(dense))
        throw std::invalid_argument("slots and dense must be 0 to 65536");
    BufferView buffer;
    if (!buffer.acquire(data.ptr()))
        throw nb::type_error("take_ctr_frames: data must be bytes or a contiguous memoryview");
    return take_frames(data, buffer, {static_cast<size_t>(slots), static_cast<size_t>(dense)},
                       {requests_max, rows_max, payload_bytes_max, frame_bytes_max});
}

nb::bytes responses(const CtrFrames& frames, const InputArray<float>& probabilities) {
    expect_dimensions(probabilities, 2, "probabilities");
    if (probabilities.shape(0) != frames.rows() || probabilities.shape(1) != 2)
        throw std::invalid_argument("probabilities must be float32[" +
                                    std::to_string(frames.rows()) + ", 2]");
    const size_t size = frames.responses_size();
    OutputBytes output(size);
    frames.write_responses(probabilities.data(), output.data());
    return output.finish(size);
}

CtrFrames part(const CtrFrames& frames, size_t first, size_t count) {
    const size_t all = frames.requests().size();
    if (count == 0 || first >= all || count > all - first)
        throw std::invalid_argument("there are " + std::to_string(all) + " requests");
    return frames.part(first, count);
}

template <int64_t CtrFrames::Request::* Id>
nb::list ids(const CtrFrames& frames) {
    nb::list all;
    for (const auto& request : frames.requests()) all.append(request.*Id);
    return all;
}

}  // namespace

void bind_ctr_frames(nb::module_& m) {
    nb::class_<CtrFrames>(m, "CtrFrames", nb::is_final())
        .def("__len__", [](const CtrFrames& frames) { return frames.requests().size(); })
        .def_prop_ro("rows", &CtrFrames::rows)
        .def_prop_ro("timeout_ms_min", &CtrFrames::timeout_ms_min)
        .def_prop_ro("correlation_ids", &ids<&CtrFrames::Request::correlation_id>,
                     nb::sig("def correlation_ids(self) -> list[int]"))
        .def_prop_ro("log_ids", &ids<&CtrFrames::Request::log_id>,
                     nb::sig("def log_ids(self) -> list[int]"))
        .def_prop_ro(
            "keys",
            [](const CtrFrames& frames) {
                const size_t count = frames.rows() * frames.columns().slots;
                return View<const int64_t>(frames.sparse_ids(), {count}, nb::handle());
            },
            nb::rv_policy::reference_internal)
        .def_prop_ro(
            "dense",
            [](const CtrFrames& frames) {
                const std::initializer_list<size_t> shape{frames.rows(), frames.columns().dense};
                return View<const float>(frames.dense_ids(), shape, nb::handle());
            },
            nb::rv_policy::reference_internal)
        .def("part", &part, nb::arg("first"), nb::arg("count"))
        .def("responses", &responses, nb::arg("probabilities").noconvert());
    m.def("take_ctr_frames", &take, nb::arg("data"), nb::kw_only(), nb::arg("slots"),
          nb::arg("dense"), nb::arg("requests_max"), nb::arg("rows_max"),
          nb::arg("payload_bytes_max"), nb::arg("frame_bytes_max"),
          nb::sig("def take_ctr_frames(data: bytes | memoryview, *, slots: int, dense: int, "
                  "requests_max: int, rows_max: int, payload_bytes_max: int, "
                  "frame_bytes_max: int) -> tuple[CtrFrames | None, list[Frame], int, int]"));
}
