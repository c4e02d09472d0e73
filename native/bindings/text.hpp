#pragma once

#include <nanobind/nanobind.h>

#include <string_view>

// Text that came from outside, which need not be UTF-8: what is not is shown escaped.
inline nanobind::str text_of(std::string_view text) {
    return nanobind::steal<nanobind::str>(PyUnicode_DecodeUTF8(
        text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace"));
}
