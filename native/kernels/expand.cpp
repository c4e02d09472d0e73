#include "kernels/expand.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cube {

namespace {

float float_of_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
    if (magnitude >= 0x0f800000u)  // infinities and NaN
        return std::bit_cast<float>(sign | 0x7f800000u | magnitude);
    // The exponents' biases differ by 112; a product takes denormals along.
    return std::bit_cast<float>(
        sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f));
}

void expand_fp16(const uint8_t* stored, size_t count, uint8_t* target) {
    for (size_t i = 0; i < count; ++i) {
        uint16_t half;
        std::memcpy(&half, stored + 2 * i, sizeof half);
        const float value = float_of_half(half);
        std::memcpy(target + 4 * i, &value, sizeof value);
    }
}

// What the bytes of an int8 row count.
struct Scale {
    float low;
    float step;

    explicit Scale(const uint8_t* stored) {
        float ends[2];
        std::memcpy(ends, stored, sizeof ends);
        low = ends[0];
        step = (ends[1] - ends[0]) / 255.0f;
    }
    [[maybe_unused]] bool is_finite() const { return std::isfinite(low) && std::isfinite(step); }
};

void expand_steps(Scale scale, const uint8_t* steps, size_t count, uint8_t* target) {
    for (size_t i = 0; i < count; ++i) {
        const float value = scale.low + static_cast<float>(steps[i]) * scale.step;
        std::memcpy(target + 4 * i, &value, sizeof value);
    }
}

[[gnu::noinline]] void expand_int8(const uint8_t* stored, size_t count, uint8_t* target) {
    expand_steps(Scale(stored), stored + kInt8HeadBytes, count, target);
}

#if defined(__x86_64__)

// The same bytes as above, whatever comes: where NaN go in or come out, whose bits depend on the
// instruction and on the order of its operands, it is left to the functions above. Products and
// sums are not fused, since that rounds otherwise.

__attribute__((target("avx2,f16c"))) void expand_fp16_avx2(const uint8_t* stored, size_t count,
                                                           uint8_t* target) {
    for (; count >= 8; count -= 8, stored += 16, target += 32) {
        const __m256 values =
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(stored)));
        if (_mm256_movemask_ps(_mm256_cmp_ps(values, values, _CMP_UNORD_Q)) != 0) [[unlikely]] {
            expand_fp16(stored, 8, target);
        } else {
            _mm256_storeu_ps(reinterpret_cast<float*>(target), values);
        }
    }
    expand_fp16(stored, count, target);
}

__attribute__((target("avx2"))) void expand_int8_avx2(const uint8_t* stored, size_t count,
                                                      uint8_t* target) {
    const Scale scale(stored);
    if (!scale.is_finite()) return expand_int8(stored, count, target);
    const __m256 low = _mm256_set1_ps(scale.low);
    const __m256 step = _mm256_set1_ps(scale.step);
    const uint8_t* at = stored + kInt8HeadBytes;
    for (; count >= 8; count -= 8, at += 8, target += 32) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
        const __m256 steps = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
        _mm256_storeu_ps(reinterpret_cast<float*>(target),
                         _mm256_add_ps(low, _mm256_mul_ps(steps, step)));
    }
    expand_steps(scale, at, count, target);
}

constexpr size_t kLanes = 16;

uint16_t lanes_of(size_t count) {
    return static_cast<uint16_t>(count >= kLanes ? 0xffff : (1u << count) - 1);
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) void expand_fp16_avx512(const uint8_t* stored,
                                                                             size_t count,
                                                                             uint8_t* target) {
    for (size_t i = 0; i < count; i += kLanes) {
        const __mmask16 lanes = lanes_of(count - i);
        const __m512 values = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, stored + 2 * i));
        if (_mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q) != 0) [[unlikely]] {
            expand_fp16(stored + 2 * i, count - i < kLanes ? count - i : kLanes, target + 4 * i);
        } else {
            _mm512_mask_storeu_ps(target + 4 * i, lanes, values);
        }
    }
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) void expand_int8_avx512(const uint8_t* stored,
                                                                             size_t count,
                                                                             uint8_t* target) {
    const Scale scale(stored);
    if (!scale.is_finite()) return expand_int8(stored, count, target);
    const __m512 low = _mm512_set1_ps(scale.low);
    const __m512 step = _mm512_set1_ps(scale.step);
    for (size_t i = 0; i < count; i += kLanes) {
        const __mmask16 lanes = lanes_of(count - i);
        const __m128i bytes = _mm_maskz_loadu_epi8(lanes, stored + kInt8HeadBytes + i);
        const __m512 steps = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
        _mm512_mask_storeu_ps(target + 4 * i, lanes,
                              _mm512_add_ps(low, _mm512_mul_ps(steps, step)));
    }
}

#endif

}  // namespace

ExpandRow row_expander(ValueKind kind, [[maybe_unused]] CpuLevel level) {
    if (kind != ValueKind::kFp16 && kind != ValueKind::kInt8) return nullptr;
    const bool is_fp16 = kind == ValueKind::kFp16;
#if defined(__x86_64__)
    if (level >= CpuLevel::kAvx512) return is_fp16 ? expand_fp16_avx512 : expand_int8_avx512;
    if (level >= CpuLevel::kAvx2) return is_fp16 ? expand_fp16_avx2 : expand_int8_avx2;
#endif
    return is_fp16 ? expand_fp16 : expand_int8;
}

}  // namespace cube
