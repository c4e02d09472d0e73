#pragma once

#include <nanobind/nanobind.h>

#include <utility>

#include "kernels/protobuf.hpp"

// A contiguous buffer of any Python object, held for the length of a call: take it as an argument
// of type `const BufferView&`.
class BufferView {
  public:
    BufferView() = default;
    BufferView(const BufferView&) = delete;
    BufferView& operator=(const BufferView&) = delete;
    BufferView(BufferView&& other) noexcept
        : view_(other.view_), held_(std::exchange(other.held_, false)) {}
    BufferView& operator=(BufferView&& other) noexcept {
        std::swap(view_, other.view_);
        std::swap(held_, other.held_);
        return *this;
    }
    ~BufferView() {
        if (held_) PyBuffer_Release(&view_);
    }

    // False, with no Python error set, when `source` offers no contiguous buffer.
    bool acquire(PyObject* source) noexcept {
        if (!PyObject_CheckBuffer(source)) return false;
        held_ = PyObject_GetBuffer(source, &view_, PyBUF_SIMPLE) == 0;
        if (!held_) PyErr_Clear();
        return held_;
    }
    cube::Bytes bytes() const {
        return {static_cast<const uint8_t*>(view_.buf), static_cast<size_t>(view_.len)};
    }
    size_t size() const { return static_cast<size_t>(view_.len); }

  private:
    Py_buffer view_{};
    bool held_ = false;
};

namespace nanobind::detail {

template <>
struct type_caster<BufferView> {
    NB_TYPE_CASTER(BufferView, const_name("collections.abc.Buffer"))

    bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
        return value.acquire(source.ptr());
    }
};

}  // namespace nanobind::detail
