#include "kernels/row_cache.hpp"

#include <algorithm>
#include <optional>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"

namespace {

using cube::RowCache;

// Some 20 ns a key.
constexpr size_t kReleaseKeysMin = 4096;
constexpr int64_t kDimMax = 16383;

template <class Rows, class Status>
void expect_shapes(const RowCache& cache, size_t keys, const Rows& rows, const Status& status) {
    expect_dimensions(rows, 2, "rows");
    expect_dimensions(status, 1, "status");
    if (rows.shape(0) != keys || status.shape(0) != keys || rows.shape(1) != cache.dim())
        throw std::invalid_argument("rows must be float32[" + std::to_string(keys) + ", " +
                                    std::to_string(cache.dim()) + "] and status int32[" +
                                    std::to_string(keys) + "]");
}

template <class T>
NumpyArray<T> array_of(const std::vector<T>& items) {
    NumpyArray<T> array = new_array<T>({items.size()});
    std::copy(items.begin(), items.end(), array.data());
    return array;
}

NumpyArray<uint32_t> get(RowCache& cache, const InputArray<uint64_t>& keys,
                         const OutputArray<float>& rows, const OutputArray<int32_t>& status) {
    const auto wanted = items_of(keys, "keys");
    expect_shapes(cache, wanted.size(), rows, status);
    std::vector<uint32_t> unknown;
    {
        std::optional<nb::gil_scoped_release> released;
        if (wanted.size() >= kReleaseKeysMin) released.emplace();
        unknown = cache.get(wanted, rows.data(), status.data());
    }
    return array_of(unknown);
}

void put(RowCache& cache, const InputArray<uint64_t>& keys, const InputArray<float>& rows,
         const InputArray<int32_t>& status) {
    const auto taken = items_of(keys, "keys");
    expect_shapes(cache, taken.size(), rows, status);
    std::optional<nb::gil_scoped_release> released;
    if (taken.size() >= kReleaseKeysMin) released.emplace();
    cache.put(taken, rows.data(), status.data());
}

void fill(RowCache& cache, const InputArray<uint64_t>& keys, const InputArray<uint32_t>& places,
          const InputArray<float>& found, const InputArray<int32_t>& found_status,
          const OutputArray<float>& rows, const OutputArray<int32_t>& status) {
    const auto wanted = items_of(keys, "keys");
    const auto filled = items_of(places, "places");
    expect_shapes(cache, filled.size(), found, found_status);
    expect_shapes(cache, wanted.size(), rows, status);
    for (const uint32_t place : filled)
        if (place >= wanted.size())
            throw std::invalid_argument("place " + std::to_string(place) + " is not below " +
                                        std::to_string(wanted.size()) + " keys");
    std::optional<nb::gil_scoped_release> released;
    if (filled.size() >= kReleaseKeysMin) released.emplace();
    cache.fill(wanted, filled, found.data(), found_status.data(), rows.data(), status.data());
}

}  // namespace

void bind_row_cache(nb::module_& m) {
    nb::class_<RowCache>(m, "RowCache", nb::is_final(), nb::is_weak_referenceable())
        .def(
            "__init__",
            [](RowCache* self, size_t capacity_bytes, int64_t dim) {
                if (dim < 1 || dim > kDimMax) throw std::invalid_argument("dim must be 1 to 16383");
                const nb::gil_scoped_release released;
                new (self) RowCache(capacity_bytes, static_cast<size_t>(dim));
            },
            nb::arg("capacity_bytes"), nb::arg("dim"))
        .def("get", &get, nb::arg("keys").noconvert(), nb::arg("rows").noconvert(),
             nb::arg("status").noconvert())
        .def("put", &put, nb::arg("keys").noconvert(), nb::arg("rows").noconvert(),
             nb::arg("status").noconvert())
        .def("fill", &fill, nb::arg("keys").noconvert(), nb::arg("places").noconvert(),
             nb::arg("found").noconvert(), nb::arg("found_status").noconvert(),
             nb::arg("rows").noconvert(), nb::arg("status").noconvert())
        .def(
            "hot_keys",
            [](const RowCache& cache, size_t count_max) {
                std::vector<uint64_t> keys;
                {
                    const nb::gil_scoped_release released;
                    keys = cache.hot_keys(count_max);
                }
                return array_of(keys);
            },
            nb::arg("count_max"))
        .def("__len__", &RowCache::size)
        .def_prop_ro("dim", &RowCache::dim)
        .def_prop_ro("capacity", &RowCache::capacity)
        .def_prop_ro("bytes", &RowCache::bytes)
        .def_prop_ro("hits", &RowCache::hits)
        .def_prop_ro("misses", &RowCache::misses);
}
