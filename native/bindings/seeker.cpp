#include "bindings/bindings.hpp"

void bind_seeker(nb::module_&) {}
