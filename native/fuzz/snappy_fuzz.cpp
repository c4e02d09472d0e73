// Snappy payloads, expanded into exactly the room they say they take.

#include <vector>

#include "fuzz/target.hpp"
#include "kernels/snappy.hpp"

using namespace cube;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr size_t kBytesMax = 1 << 16;
    fuzz::refuse_or_pass({ErrorKind::kWire, ErrorKind::kLimit}, [&] {
        const size_t expanded_bytes = snappy_size({data, size}, kBytesMax);
        fuzz::require(expanded_bytes <= kBytesMax, "the length is within its bound");
        std::vector<uint8_t> expanded(expanded_bytes);
        snappy_expand({data, size}, expanded.data());
    });
    return 0;
}
