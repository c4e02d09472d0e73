#include "kernels/sequence_file.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "bindings/bindings.hpp"

namespace {

using KeyArray = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ValueMatrix = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T>
nb::capsule owner_of(T* data) {
    return {data, [](void* held) noexcept { delete[] static_cast<T*>(held); }};
}

const char* dialect_name(const cube::SequenceFileReader& reader) {
    if (!reader.dialect()) return "";
    return *reader.dialect() == cube::SequenceDialect::kPaddle ? "paddle" : "hadoop";
}

cube::SequenceDialect dialect_named(const std::string& name) {
    if (name == "paddle") return cube::SequenceDialect::kPaddle;
    if (name == "hadoop") return cube::SequenceDialect::kHadoop;
    throw std::invalid_argument("dialect must be \"hadoop\" or \"paddle\", not \"" + name + "\"");
}

nb::tuple read_batch(cube::SequenceFileReader& reader, int64_t records_max) {
    if (records_max <= 0) throw std::invalid_argument("records_max must be over 0");
    cube::SequenceBatch batch;
    {
        nb::gil_scoped_release released;
        batch = reader.read(static_cast<size_t>(records_max));
    }
    uint64_t* keys = batch.keys.release();
    const nb::capsule keys_owner = owner_of(keys);
    uint8_t* values = batch.values.release();
    const nb::capsule values_owner = owner_of(values);
    return nb::make_tuple(
        nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>>(keys, {batch.count}, keys_owner),
        nb::ndarray<nb::numpy, uint8_t, nb::ndim<2>>(values, {batch.count, batch.width},
                                                     values_owner));
}

void append_batch(cube::SequenceFileWriter& writer, const KeyArray& keys,
                  const ValueMatrix& values) {
    if (keys.shape(0) != values.shape(0))
        throw std::invalid_argument(std::to_string(keys.shape(0)) + " keys, but " +
                                    std::to_string(values.shape(0)) + " values");
    nb::gil_scoped_release released;
    writer.append(keys.shape(0), values.shape(1), keys.data(), values.data());
}

}  // namespace

void bind_sequence_file(nb::module_& m) {
    using Reader = cube::SequenceFileReader;
    nb::class_<Reader>(m, "SequenceFileReader", nb::is_final())
        .def(nb::init<const std::string&>(), nb::arg("path"))
        .def_prop_ro("path", [](const Reader& reader) { return reader.path(); })
        .def_prop_ro("dialect", &dialect_name)
        .def_prop_ro("value_bytes", &Reader::width)
        .def_prop_ro("key_class", [](const Reader& reader) { return reader.header().key_class; })
        .def_prop_ro("value_class",
                     [](const Reader& reader) { return reader.header().value_class; })
        .def_prop_ro("file_bytes", &Reader::file_bytes)
        .def_prop_ro("offset", &Reader::offset)
        .def("read", &read_batch, nb::arg("records_max"));

    using Writer = cube::SequenceFileWriter;
    nb::class_<Writer>(m, "SequenceFileWriter", nb::is_final())
        .def(
            "__init__",
            [](Writer* self, const std::string& path, const std::string& dialect) {
                new (self) Writer(path, dialect_named(dialect));
            },
            nb::arg("path"), nb::kw_only(), nb::arg("dialect") = "hadoop")
        .def("append", &append_batch, nb::arg("keys").noconvert(), nb::arg("values").noconvert())
        .def("close", &Writer::close, nb::call_guard<nb::gil_scoped_release>())
        .def("__enter__", [](nb::handle self) { return nb::borrow(self); })
        .def(
            "__exit__",
            [](Writer& writer, nb::handle error_type, nb::handle, nb::handle) {
                nb::gil_scoped_release released;
                error_type.is_none() ? writer.close() : writer.discard();
            },
            nb::arg("exc_type").none(), nb::arg("exc_value").none(), nb::arg("traceback").none());
}
