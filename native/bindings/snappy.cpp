#include "kernels/snappy.hpp"

#include <optional>

#include "bindings/bindings.hpp"
#include "bindings/output_bytes.hpp"

namespace {

constexpr size_t kReleaseBytesMin = size_t{64} << 10;

nb::bytes snappy_decompress(const BufferView& data, size_t bytes_max) {
    const size_t size = cube::snappy_size(data.bytes(), bytes_max);
    OutputBytes output(size);
    uint8_t* target = output.data();
    {
        std::optional<nb::gil_scoped_release> released;
        if (size >= kReleaseBytesMin) released.emplace();
        cube::snappy_expand(data.bytes(), target);
    }
    return output.finish(size);
}

}  // namespace

void bind_snappy(nb::module_& m) {
    m.def("snappy_decompress", &snappy_decompress, nb::arg("data"), nb::arg("bytes_max"));
}
