#include "kernels/cpu.hpp"

#include <cstddef>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace cube {

namespace {

constexpr CpuLevel kLevels[] = {CpuLevel::kBaseline, CpuLevel::kSse42, CpuLevel::kAvx2,
                                CpuLevel::kAvx512};

#if defined(__x86_64__)
// Not every compiler knows this one by name.
bool has_f16c() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

size_t count_levels() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("sse4.2")) return 1;
    if (!__builtin_cpu_supports("avx2") || !has_f16c()) return 2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl"))
        return 3;
    return 4;
#else
    return 1;
#endif
}

CpuLevel choose_level() {
    const char* wanted = std::getenv("CUBE_CPU");
    if (wanted == nullptr || *wanted == '\0') return cpu_levels().back();
    std::string known;
    for (const CpuLevel level : cpu_levels()) {
        if (std::string_view(wanted) == name_of(level)) return level;
        known += (known.empty() ? "" : ", ") + std::string(name_of(level));
    }
    throw std::invalid_argument("CUBE_CPU is '" + std::string(wanted).substr(0, 100) +
                                "'; this CPU has: " + known);
}

}  // namespace

const char* name_of(CpuLevel level) {
    switch (level) {
        case CpuLevel::kBaseline:
            return "baseline";
        case CpuLevel::kSse42:
            return "sse42";
        case CpuLevel::kAvx2:
            return "avx2";
        case CpuLevel::kAvx512:
            return "avx512";
    }
    return "";
}

std::span<const CpuLevel> cpu_levels() {
    static const size_t count = count_levels();
    return std::span(kLevels).first(count);
}

CpuLevel cpu_level() {
    static const CpuLevel level = choose_level();
    return level;
}

}  // namespace cube
