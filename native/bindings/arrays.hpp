#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <span>
#include <stdexcept>
#include <string>

namespace nb = nanobind;

// Arrays come in without conversion or copy: another dtype or a gap is a TypeError. Shapes are
// checked by hand, since a wrong one is a ValueError that names the argument.
template <class T>
using InputArray = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using OutputArray = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <class T>
using NumpyArray = nb::ndarray<T, nb::numpy, nb::c_contig>;

template <class Array>
void expect_dimensions(const Array& array, size_t dimensions, const char* name) {
    if (array.ndim() != dimensions)
        throw std::invalid_argument(std::string(name) + " must have " + std::to_string(dimensions) +
                                    " dimension(s), not " + std::to_string(array.ndim()));
}

template <class T>
std::span<const T> items_of(const InputArray<T>& array, const char* name) {
    expect_dimensions(array, 1, name);
    return {array.data(), array.shape(0)};
}

// A new array that owns its (uninitialised) memory.
template <class T>
NumpyArray<T> new_array(std::initializer_list<size_t> shape) {
    size_t count = 1;
    for (const size_t length : shape) count *= length;
    std::unique_ptr<T[]> data = std::make_unique_for_overwrite<T[]>(count);
    nb::capsule owner(data.get(), [](void* held) noexcept { delete[] static_cast<T*>(held); });
    return NumpyArray<T>(data.release(), shape, owner);
}
