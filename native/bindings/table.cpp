#include "bindings/bindings.hpp"

void bind_table(nb::module_&) {}
