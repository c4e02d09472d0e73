#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

namespace nb = nanobind;

// A bytes object that is written in place before anyone else sees it.
class OutputBytes {
  public:
    explicit OutputBytes(size_t size)
        : bytes_(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size))) {
        if (bytes_ == nullptr) nb::raise_python_error();
    }
    OutputBytes(const OutputBytes&) = delete;
    OutputBytes& operator=(const OutputBytes&) = delete;
    ~OutputBytes() { Py_XDECREF(bytes_); }

    uint8_t* data() { return reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(bytes_)); }
    // Hands it over, cut to `size`.
    nb::bytes finish(size_t size) {
        if (static_cast<Py_ssize_t>(size) != PyBytes_GET_SIZE(bytes_) &&
            _PyBytes_Resize(&bytes_, static_cast<Py_ssize_t>(size)) != 0)
            nb::raise_python_error();
        PyObject* bytes = bytes_;
        bytes_ = nullptr;
        return nb::steal<nb::bytes>(bytes);
    }

  private:
    PyObject* bytes_;
};
