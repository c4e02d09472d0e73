#include "kernels/ctr_codec.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "bindings/bindings.hpp"

namespace {

// A row takes some 200 ns: below this many bytes, handing over the GIL costs more than it gives.
constexpr size_t kReleaseBytesMin = size_t{16} << 10;
constexpr size_t kColumnsMax = 65536;

using IdMatrix = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename Kernel>
void run_kernel(size_t bytes, const Kernel& kernel) {
    if (bytes < kReleaseBytesMin) return kernel();
    nb::gil_scoped_release released;
    kernel();
}

template <typename T>
std::unique_ptr<T[]> uninitialized_cells(size_t count) {
    return std::unique_ptr<T[]>(new T[count]);
}

template <typename T>
nb::object to_matrix(std::unique_ptr<T[]> cells, size_t rows, size_t columns) {
    T* data = cells.release();
    nb::capsule owner(data, [](void* held) noexcept { delete[] static_cast<T*>(held); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<2>>(data, {rows, columns}, owner));
}

nb::tuple parse_request(const BufferView& payload, int64_t slots, int64_t dense, int64_t rows_max) {
    const auto in_range = [](int64_t columns) {
        return columns >= 0 && columns <= static_cast<int64_t>(kColumnsMax);
    };
    if (!in_range(slots) || !in_range(dense) || rows_max < 0)
        throw std::invalid_argument("slots and dense must be 0 to 65536, rows_max 0 or more");
    const cube::CtrColumns columns{static_cast<size_t>(slots), static_cast<size_t>(dense)};
    size_t rows = 0;
    std::unique_ptr<int64_t[]> ids;
    std::unique_ptr<float[]> floats;
    run_kernel(payload.size(), [&] {
        rows = cube::count_ctr_instances(payload.bytes(), static_cast<size_t>(rows_max));
        ids = uninitialized_cells<int64_t>(rows * columns.slots);
        floats = uninitialized_cells<float>(rows * columns.dense);
        cube::parse_ctr_request(payload.bytes(), columns, ids.get(), floats.get());
    });
    return nb::make_tuple(to_matrix(std::move(ids), rows, columns.slots),
                          to_matrix(std::move(floats), rows, columns.dense));
}

nb::object new_bytes(size_t size) {
    nb::object bytes = nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
    if (!bytes.is_valid()) nb::raise_python_error();
    return bytes;
}

uint8_t* data_of(const nb::object& bytes) {
    return reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(bytes.ptr()));
}

nb::object encode_request(const IdMatrix& sparse_ids, const FloatMatrix& dense_ids) {
    const size_t rows = sparse_ids.shape(0);
    if (rows != dense_ids.shape(0))
        throw std::invalid_argument("sparse_ids has " + std::to_string(rows) +
                                    " rows, dense_ids has " + std::to_string(dense_ids.shape(0)));
    const cube::CtrColumns columns{sparse_ids.shape(1), dense_ids.shape(1)};
    size_t size = 0;
    run_kernel(sparse_ids.nbytes(),
               [&] { size = cube::ctr_request_size(rows, columns, sparse_ids.data()); });
    nb::object bytes = new_bytes(size);
    run_kernel(size, [&] {
        cube::encode_ctr_request(rows, columns, sparse_ids.data(), dense_ids.data(),
                                 data_of(bytes));
    });
    return bytes;
}

nb::object encode_response(const FloatMatrix& probabilities, int64_t err_code,
                           const std::string& err_msg) {
    if (probabilities.shape(1) != 2)
        throw std::invalid_argument("probabilities must be float32[n, 2], not [n, " +
                                    std::to_string(probabilities.shape(1)) + "]");
    const size_t rows = probabilities.shape(0);
    nb::object bytes = new_bytes(cube::ctr_response_size(rows, err_code, err_msg));
    run_kernel(probabilities.nbytes(), [&] {
        cube::encode_ctr_response(rows, probabilities.data(), err_code, err_msg, data_of(bytes));
    });
    return bytes;
}

nb::tuple parse_response(const BufferView& payload) {
    cube::CtrResponse response;
    run_kernel(payload.size(), [&] { response = cube::parse_ctr_response(payload.bytes()); });
    const size_t cells = response.probabilities.size();
    auto probabilities = uninitialized_cells<float>(cells);
    std::copy(response.probabilities.begin(), response.probabilities.end(), probabilities.get());
    // A server of another make may send text that is not UTF-8; its message is shown all the same.
    nb::object err_msg = nb::steal(PyUnicode_DecodeUTF8(
        response.err_msg.data(), static_cast<Py_ssize_t>(response.err_msg.size()), "replace"));
    return nb::make_tuple(to_matrix(std::move(probabilities), cells / 2, 2), response.err_code,
                          err_msg);
}

}  // namespace

void bind_ctr_codec(nb::module_& m) {
    m.def("parse_ctr_request", &parse_request, nb::arg("payload"), nb::kw_only(),
          nb::arg("slots") = 26, nb::arg("dense") = 13, nb::arg("rows_max") = 65536);
    m.def("encode_ctr_request", &encode_request, nb::arg("sparse_ids").noconvert(),
          nb::arg("dense_ids").noconvert());
    m.def("encode_ctr_response", &encode_response, nb::arg("probabilities").noconvert(),
          nb::kw_only(), nb::arg("err_code") = 0, nb::arg("err_msg") = "");
    m.def("parse_ctr_response", &parse_response, nb::arg("payload"));
}
