#include "bindings/bindings.hpp"

void bind_sequence_file(nb::module_&) {}
