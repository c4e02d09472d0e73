#include "bindings/bindings.hpp"

void bind_frame(nb::module_&) {}
