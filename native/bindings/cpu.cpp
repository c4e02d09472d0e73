#include "kernels/cpu.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.hpp"

namespace {

std::vector<std::string> level_names() {
    std::vector<std::string> names;
    for (const cube::CpuLevel level : cube::cpu_levels()) names.emplace_back(cube::name_of(level));
    return names;
}

}  // namespace

void bind_cpu(nb::module_& m) {
    m.def("cpu_level", [] { return std::string(cube::name_of(cube::cpu_level())); });
    m.def("cpu_levels", &level_names);
}
