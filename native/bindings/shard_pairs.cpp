#include "kernels/shard_pairs.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/byte_values.hpp"

namespace {

constexpr uint32_t kShardsMax = 65535;
constexpr int64_t kWidthMax = 65535;

void make(cube::ShardPairs* self, const std::string& directory, uint32_t shard_num,
          size_t value_bytes) {
    if (shard_num < 1 || shard_num > kShardsMax)
        throw std::invalid_argument("shard_num must be 1 to 65535");
    new (self) cube::ShardPairs(directory, shard_num, value_bytes);
}

void add_rows(cube::ShardPairs& pairs, std::span<const uint64_t> keys,
              const InputArray<uint8_t>& rows) {
    expect_dimensions(rows, 2, "values");
    if (rows.shape(0) != keys.size() || rows.shape(1) != pairs.value_bytes())
        throw std::invalid_argument("values must be [" + std::to_string(keys.size()) + ", " +
                                    std::to_string(pairs.value_bytes()) + "]");
    nb::gil_scoped_release released;
    pairs.add(keys, rows.data());
}

void add(cube::ShardPairs& pairs, const InputArray<uint64_t>& keys_array,
         const InputArray<uint8_t>& values, const std::optional<InputArray<int64_t>>& offsets) {
    const auto keys = items_of(keys_array, "keys");
    if (keys.size() > UINT32_MAX) throw std::invalid_argument("more than 4294967295 pairs at once");
    if (offsets.has_value() != (pairs.value_bytes() == 0))
        throw std::invalid_argument("offsets are for values of a width each, which need them");
    if (!offsets.has_value()) return add_rows(pairs, keys, values);
    const auto cuts = cut_up(*offsets, values, keys.size());
    for (size_t i = 0; i < keys.size(); ++i)
        if (cuts[i + 1] - cuts[i] > kWidthMax)
            throw std::invalid_argument("a value of more than 65535 bytes");
    nb::gil_scoped_release released;
    pairs.add(keys, values.data(), cuts);
}

nb::tuple largest(const cube::ShardPairs& pairs) {
    const auto [by_count, by_heap] = pairs.largest();
    const auto tuple_of = [](const cube::ShardSize& size) {
        return nb::make_tuple(size.shard, size.count, size.heap_bytes);
    };
    return nb::make_tuple(tuple_of(by_count), tuple_of(by_heap));
}

// An array that owns the memory.
template <class T>
NumpyArray<T> array_of(cube::GrowingMemory&& memory, std::initializer_list<size_t> shape) {
    auto held = std::make_unique<cube::GrowingMemory>(std::move(memory));
    T* data = reinterpret_cast<T*>(held->data());
    nb::capsule owner(held.get(),
                      [](void* each) noexcept { delete static_cast<cube::GrowingMemory*>(each); });
    held.release();
    return NumpyArray<T>(data, shape, owner);
}

nb::tuple take(cube::ShardPairs& pairs, uint32_t shard) {
    if (shard >= pairs.shard_num()) throw std::invalid_argument("no such shard");
    cube::PairColumns taken;
    {
        nb::gil_scoped_release released;
        taken = pairs.take(shard);
    }
    const size_t count = taken.keys.size() / sizeof(uint64_t);
    const size_t heap_bytes = taken.values.size();
    auto keys = array_of<uint64_t>(std::move(taken.keys), {count});
    if (pairs.value_bytes() > 0)
        return nb::make_tuple(
            keys, array_of<uint8_t>(std::move(taken.values), {count, pairs.value_bytes()}),
            nb::none());
    return nb::make_tuple(keys, array_of<uint8_t>(std::move(taken.values), {heap_bytes}),
                          array_of<uint16_t>(std::move(taken.widths), {count}));
}

}  // namespace

void bind_shard_pairs(nb::module_& m) {
    using Pairs = cube::ShardPairs;
    nb::class_<Pairs>(m, "ShardPairs", nb::is_final())
        .def("__init__", &make, nb::arg("directory"), nb::arg("shard_num"), nb::arg("value_bytes"))
        .def("add", &add, nb::arg("keys").noconvert(), nb::arg("values").noconvert(),
             nb::arg("offsets").noconvert() = nb::none())
        .def("largest", &largest)
        .def("keep_in_memory", &Pairs::keep_in_memory, nb::arg("bytes_max"),
             nb::call_guard<nb::gil_scoped_release>())
        .def("take", &take, nb::arg("shard"));
}
