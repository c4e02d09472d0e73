#pragma once

#include <span>

namespace cube {

// What the kernels use of the CPU, each level with those before it. A program built for any x86-64
// finds out when it starts; elsewhere there is the baseline alone.
enum class CpuLevel { kBaseline, kSse42, kAvx2, kAvx512 };

const char* name_of(CpuLevel level);

// What this CPU has, the baseline first.
std::span<const CpuLevel> cpu_levels();

// What is used: the last of them, or what the environment variable CUBE_CPU names. Throws
// std::invalid_argument when that is no level, or not of this CPU.
CpuLevel cpu_level();

}  // namespace cube
