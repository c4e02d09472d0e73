#include "kernels/seek_plan.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/output_bytes.hpp"
#include "bindings/python_frame.hpp"
#include "bindings/text.hpp"
#include "kernels/frame.hpp"
#include "kernels/seek_values.hpp"

namespace {

using Text = std::optional<std::string_view>;

// Copying so many bytes of rows takes some 10 microseconds.
constexpr size_t kReleaseBytesMin = size_t{128} << 10;

cube::SeekOptions options_of(const Text& version, bool version_required, const Text& dict_name) {
    if (version && version->empty()) throw std::invalid_argument("version must not be empty");
    if (dict_name && dict_name->empty()) throw std::invalid_argument("dict_name must not be empty");
    return {version.value_or(std::string_view()), version_required,
            dict_name.value_or(std::string_view())};
}

nb::bytes payload(const cube::SeekPlan& plan, uint32_t shard, const Text& version,
                  bool version_required, const Text& dict_name) {
    const cube::SeekOptions options = options_of(version, version_required, dict_name);
    const auto keys = plan.keys_of(shard);
    const size_t size = cube::seek_request_size(keys, options);
    OutputBytes output(size);
    cube::write_seek_request(output.data(), keys, options);
    return output.finish(size);
}

nb::bytes frame(const cube::SeekPlan& plan, uint32_t shard, int64_t correlation_id,
                const Text& version, bool version_required, int32_t timeout_ms,
                const Text& dict_name, int64_t log_id) {
    const cube::SeekOptions options = options_of(version, version_required, dict_name);
    const auto keys = plan.keys_of(shard);
    const size_t payload_size = cube::seek_request_size(keys, options);
    const std::string head = cube::encode_request_head(
        {"rec.mcube.DictService", "seek", correlation_id, timeout_ms, log_id}, payload_size, 0);
    OutputBytes output(head.size() + payload_size);
    cube::write_seek_request(std::copy(head.begin(), head.end(), output.data()), keys, options);
    return output.finish(head.size() + payload_size);
}

void expect_rows(const cube::SeekPlan& plan, const OutputArray<float>& rows,
                 const OutputArray<int32_t>& status) {
    expect_dimensions(rows, 2, "rows");
    expect_dimensions(status, 1, "status");
    if (rows.shape(0) != plan.batch_size() || status.shape(0) != plan.batch_size())
        throw std::invalid_argument("rows has " + std::to_string(rows.shape(0)) +
                                    " rows and status " + std::to_string(status.shape(0)) +
                                    " items for " + std::to_string(plan.batch_size()) + " keys");
    if (rows.shape(1) == 0) throw std::invalid_argument("rows must have at least one column");
}

nb::object decode(const cube::SeekPlan& plan, uint32_t shard, const BufferView& body,
                  const OutputArray<float>& rows, const OutputArray<int32_t>& status) {
    expect_rows(plan, rows, status);
    const auto positions = plan.positions_of(shard);
    const cube::SeekTarget target{rows.data(), rows.shape(1), status.data()};
    cube::SeekVersion version;
    {
        std::optional<nb::gil_scoped_release> released;
        if (body.size() >= kReleaseBytesMin) released.emplace();
        version = cube::decode_seek_response(body.bytes(), positions, target);
        plan.spread(shard, target);
    }
    if (!version.present) return nb::none();
    return text_of(version.name);
}

using AnyInputArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

nb::tuple begin(const AnyInputArray& keys, uint32_t shard_num, std::string_view version,
                int32_t timeout_ms, std::string_view dict_name, int64_t log_id) {
    if (keys.dtype() != nb::dtype<uint64_t>() && keys.dtype() != nb::dtype<int64_t>())
        throw nb::type_error("keys must be uint64 or int64");
    expect_dimensions(keys, 1, "keys");
    // Negative ids stand for their two's complement.
    const std::span items(static_cast<const uint64_t*>(keys.data()), keys.shape(0));
    nb::object made = nb::cast(cube::SeekPlan(items, shard_num));
    const auto& plan = *nb::inst_ptr<cube::SeekPlan>(made);
    nb::list asks;
    for (const uint32_t shard : plan.shards()) {
        const int64_t correlation_id = cube::next_correlation_id();
        asks.append(nb::make_tuple(
            shard, correlation_id,
            frame(plan, shard, correlation_id, version, true, timeout_ms, dict_name, log_id)));
    }
    return nb::make_tuple(std::move(made), std::move(asks));
}

bool take(const cube::SeekPlan& plan, uint32_t shard, const PythonFrame& answer,
          std::string_view version, const OutputArray<float>& rows,
          const OutputArray<int32_t>& status) {
    expect_rows(plan, rows, status);
    const auto positions = plan.positions_of(shard);
    if (answer.fields.error_code != 0 || answer.fields.compress_type != 0) return false;
    const cube::SeekTarget target{rows.data(), rows.shape(1), status.data()};
    const cube::Bytes body = answer.payload();
    std::optional<nb::gil_scoped_release> released;
    if (body.size() >= kReleaseBytesMin) released.emplace();
    try {
        const cube::SeekVersion found = cube::decode_seek_response(body, positions, target);
        if (!found.present || found.name != version) return false;
    } catch (const cube::Error&) {
        return false;
    }
    plan.spread(shard, target);
    return true;
}

nb::object check_bytes(const cube::SeekPlan& plan, uint32_t shard, const BufferView& body) {
    const auto positions = plan.positions_of(shard);
    std::vector<cube::SeekValue> values(plan.batch_size());
    cube::SeekVersion version;
    {
        std::optional<nb::gil_scoped_release> released;
        if (body.size() >= kReleaseBytesMin) released.emplace();
        version = cube::decode_seek_values(body.bytes(), positions, values);
    }
    if (!version.present) return nb::none();
    return text_of(version.name);
}

nb::tuple gather_bytes(const cube::SeekPlan& plan, const nb::sequence& bodies) {
    std::vector<std::pair<uint32_t, BufferView>> answers;
    for (nb::handle each : bodies) {
        const auto [shard, source] = nb::cast<std::pair<uint32_t, nb::object>>(each);
        plan.keys_of(shard);  // refuses a shard that is not in the plan
        BufferView& body = answers.emplace_back(shard, BufferView()).second;
        if (!body.acquire(source.ptr()))
            throw nb::type_error("gather_bytes: a body must be bytes or a contiguous buffer");
    }
    std::vector<cube::SeekValue> values(plan.batch_size());
    auto offsets = new_array<int64_t>({plan.batch_size() + 1});
    auto status = new_array<int32_t>({plan.batch_size()});
    size_t bytes = 0;
    {
        nb::gil_scoped_release released;
        for (const auto& [shard, body] : answers) {
            cube::decode_seek_values(body.bytes(), plan.positions_of(shard), values);
            plan.spread(shard, std::span(values));
        }
        bytes = cube::sum_up_values(values, offsets.data(), status.data());
    }
    auto blob = new_array<uint8_t>({bytes});
    {
        nb::gil_scoped_release released;
        cube::copy_values(values, blob.data());
    }
    return nb::make_tuple(offsets, blob, status);
}

void fail(const cube::SeekPlan& plan, uint32_t shard, const OutputArray<float>& rows,
          const OutputArray<int32_t>& status) {
    expect_rows(plan, rows, status);
    plan.fail(shard, {rows.data(), rows.shape(1), status.data()});
}

}  // namespace

void bind_seek_plan(nb::module_& m) {
    m.attr("STATUS_FOUND") = cube::kStatusFound;
    m.attr("STATUS_MISSING") = cube::kStatusMissing;
    m.attr("STATUS_WRONG_WIDTH") = cube::kStatusWrongWidth;
    m.attr("STATUS_FAILED") = cube::kStatusFailed;
    m.attr("STATUS_DELETED") = cube::kStatusDeleted;

    nb::class_<cube::SeekPlan>(m, "SeekPlan", nb::is_final())
        .def(
            "__init__",
            [](cube::SeekPlan* self, const InputArray<uint64_t>& keys, uint32_t shard_num) {
                new (self) cube::SeekPlan(items_of(keys, "keys"), shard_num);
            },
            nb::arg("keys").noconvert(), nb::arg("shard_num"))
        .def_prop_ro("shards", &cube::SeekPlan::shards)
        .def(
            "key_count",
            [](const cube::SeekPlan& plan, uint32_t shard) { return plan.keys_of(shard).size(); },
            nb::arg("shard"))
        .def("payload", &payload, nb::arg("shard"), nb::kw_only(), nb::arg("version") = nb::none(),
             nb::arg("version_required") = false, nb::arg("dict_name") = nb::none())
        .def("frame", &frame, nb::arg("shard"), nb::arg("correlation_id"), nb::kw_only(),
             nb::arg("version") = nb::none(), nb::arg("version_required") = false,
             nb::arg("timeout_ms") = 0, nb::arg("dict_name") = nb::none(), nb::arg("log_id") = 0)
        .def(
            "value_bytes",
            [](const cube::SeekPlan& plan, uint32_t shard, const BufferView& body) {
                plan.keys_of(shard);  // refuses a shard that is not in the plan
                return cube::first_value_size(body.bytes());
            },
            nb::arg("shard"), nb::arg("body"))
        .def("decode", &decode, nb::arg("shard"), nb::arg("body"), nb::arg("rows").noconvert(),
             nb::arg("status").noconvert())
        .def_static("begin", &begin, nb::arg("keys").noconvert(), nb::arg("shard_num"),
                    nb::kw_only(), nb::arg("version"), nb::arg("timeout_ms"), nb::arg("dict_name"),
                    nb::arg("log_id") = 0)
        .def("take", &take, nb::arg("shard"), nb::arg("answer"), nb::arg("version"),
             nb::arg("rows").noconvert(), nb::arg("status").noconvert())
        .def("check_bytes", &check_bytes, nb::arg("shard"), nb::arg("body"))
        .def("gather_bytes", &gather_bytes, nb::arg("bodies"))
        .def("fail", &fail, nb::arg("shard"), nb::arg("rows").noconvert(),
             nb::arg("status").noconvert());
}
