#include "kernels/sequence_file.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/byte_values.hpp"
#include "bindings/text.hpp"

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

// The vector of what `decompress(data, bytes_max)` returns; a ValueError of its is the file's
// fault.
std::vector<uint8_t> call_decompress(const nb::object& decompress, std::span<const uint8_t> data,
                                     size_t bytes_max) {
    const nb::gil_scoped_acquire held;
    try {
        const nb::object result = decompress(nb::bytes(data.data(), data.size()), bytes_max);
        const nb::bytes bytes = nb::cast<nb::bytes>(result);
        const uint8_t* begin = static_cast<const uint8_t*>(bytes.data());
        return {begin, begin + bytes.size()};
    } catch (nb::python_error& error) {
        if (!error.matches(PyExc_ValueError)) throw;
        const nb::str text(error.value());
        throw cube::RecordFault(text.c_str());
    }
}

// A Python object may only be let go with the GIL, wherever the reader is destroyed.
std::shared_ptr<nb::object> shared_object(nb::object object) {
    return {new nb::object(std::move(object)), [](nb::object* held_object) {
                const nb::gil_scoped_acquire held;
                delete held_object;
            }};
}

void make_reader(cube::SequenceFileReader* self, const std::string& path, const nb::object& codecs,
                 bool deletions) {
    cube::CodecOf codec_of;
    if (!codecs.is_none())
        codec_of = [&codecs](const std::string& name) -> cube::Decompress {
            return [decompress = shared_object(codecs(text_of(name)))](
                       std::span<const uint8_t> data, size_t bytes_max) {
                return call_decompress(*decompress, data, bytes_max);
            };
        };
    new (self) cube::SequenceFileReader(
        path, codec_of, deletions ? cube::EmptyValues::kTaken : cube::EmptyValues::kRefused);
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

// A new array that owns what was in `items`.
template <class T>
NumpyArray<T> array_of(std::vector<T>&& items) {
    auto held = std::make_unique<std::vector<T>>(std::move(items));
    T* data = held->data();
    const size_t size = held->size();
    nb::capsule owner(held.get(),
                      [](void* each) noexcept { delete static_cast<std::vector<T>*>(each); });
    held.release();
    return NumpyArray<T>(data, {size}, owner);
}

nb::tuple read_bytes(cube::SequenceFileReader& reader, size_t records_max, size_t bytes_max) {
    if (records_max == 0 || bytes_max == 0)
        throw std::invalid_argument("records_max and bytes_max must be over 0");
    cube::SequenceBytesBatch batch;
    {
        nb::gil_scoped_release released;
        batch = reader.read_bytes(records_max, bytes_max);
    }
    return nb::make_tuple(array_of(std::move(batch.keys)), array_of(std::move(batch.offsets)),
                          array_of(std::move(batch.values)));
}

void append_bytes(cube::SequenceFileWriter& writer, const InputArray<uint64_t>& keys_array,
                  const InputArray<int64_t>& offsets, const InputArray<uint8_t>& values) {
    const auto keys = items_of(keys_array, "keys");
    cut_up(offsets, values, keys.size());
    nb::gil_scoped_release released;
    writer.append_bytes(keys.size(), keys.data(), offsets.data(), values.data());
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
        .def("__init__", &make_reader, nb::arg("path"), nb::arg("codecs") = nb::none(),
             nb::kw_only(), nb::arg("deletions") = false)
        .def_prop_ro("path", [](const Reader& reader) { return reader.path(); })
        .def_prop_ro("dialect", &dialect_name)
        .def_prop_ro("value_bytes", &Reader::width)
        .def_prop_ro("key_class", [](const Reader& reader) { return reader.header().key_class; })
        .def_prop_ro("value_class",
                     [](const Reader& reader) { return reader.header().value_class; })
        .def_prop_ro("codec", [](const Reader& reader) { return text_of(reader.header().codec); })
        .def_prop_ro("file_bytes", &Reader::file_bytes)
        // A read may hold the lock of the reader while a codec waits for the GIL.
        .def_prop_ro("offset", &Reader::offset, nb::call_guard<nb::gil_scoped_release>())
        .def("read", &read_batch, nb::arg("records_max"))
        .def("read_bytes", &read_bytes, nb::arg("records_max"), nb::arg("bytes_max"));

    using Writer = cube::SequenceFileWriter;
    nb::class_<Writer>(m, "SequenceFileWriter", nb::is_final())
        .def(
            "__init__",
            [](Writer* self, const std::string& path, const std::string& dialect) {
                new (self) Writer(path, dialect_named(dialect));
            },
            nb::arg("path"), nb::kw_only(), nb::arg("dialect") = "hadoop")
        .def("append", &append_batch, nb::arg("keys").noconvert(), nb::arg("values").noconvert())
        .def("append_bytes", &append_bytes, nb::arg("keys").noconvert(),
             nb::arg("offsets").noconvert(), nb::arg("values").noconvert())
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
