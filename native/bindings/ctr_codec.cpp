#include "bindings/bindings.hpp"

void bind_ctr_codec(nb::module_&) {}
