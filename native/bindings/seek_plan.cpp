#include "bindings/bindings.hpp"

void bind_seek_plan(nb::module_&) {}
