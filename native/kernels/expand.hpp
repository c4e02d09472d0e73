#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu.hpp"
#include "kernels/value_kind.hpp"

namespace cube {

// Writes `count` float32 to `target` from the row of one value.
using ExpandRow = void (*)(const uint8_t* stored, size_t count, uint8_t* target);

// The fastest that a CPU of that level has, all of which write the same bytes; nullptr for kinds
// whose values are served as they are stored.
ExpandRow row_expander(ValueKind kind, CpuLevel level);

}  // namespace cube
