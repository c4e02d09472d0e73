#include <nanobind/stl/string.h>

#include "bindings/bindings.hpp"
#include "kernels/crc32c.hpp"
#include "kernels/file.hpp"

namespace {

// Below this, handing over the GIL costs more than it gives.
constexpr size_t kReleaseBytesMin = size_t{64} << 10;

uint32_t checksum(const BufferView& data, uint32_t value) {
    if (data.size() < kReleaseBytesMin)
        return cube::crc32c(value, data.bytes().data(), data.size());
    nb::gil_scoped_release released;
    return cube::crc32c(value, data.bytes().data(), data.size());
}

}  // namespace

void bind_files(nb::module_& m) {
    m.def("crc32c", &checksum, nb::arg("data"), nb::arg("value") = 0);
    m.def(
        "replace_file",
        [](const std::string& path, const std::string& temporary, const BufferView& data) {
            const std::string_view content(reinterpret_cast<const char*>(data.bytes().data()),
                                           data.size());
            nb::gil_scoped_release released;
            cube::replace_file(path, temporary, content);
        },
        nb::arg("path"), nb::arg("temporary"), nb::arg("data"));
    m.def("crc32c_file", &cube::crc32c_file, nb::arg("path"),
          nb::call_guard<nb::gil_scoped_release>());
}
