// What a connection brings: frames one after the other, the seeks among them answered.

#include "fuzz/served.hpp"
#include "kernels/frame.hpp"

using namespace cube;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr size_t kFrameBytesMax = 1 << 16;
    static Seeker& seeker = *new Seeker(1000, kFrameBytesMax);
    static const bool loaded = (seeker.set_tables("", fuzz::sample_table(), {}), true);
    (void)loaded;
    Bytes stream(data, size);
    fuzz::refuse_or_pass({ErrorKind::kWire}, [&] {
        for (;;) {
            const size_t needed = frame_size(stream, kFrameBytesMax);
            fuzz::require(needed <= kFrameBytesMax + kFrameHeadBytes,
                          "a frame is within its bound");
            if (needed > stream.size()) return;
            const Frame frame = parse_frame(stream.first(needed));
            stream = stream.subspan(needed);
            if (!is_plain_seek(frame)) continue;
            fuzz::refuse_or_pass(
                {ErrorKind::kWire, ErrorKind::kLimit, ErrorKind::kVersionNotLoaded},
                [&] { fuzz::serve(seeker, frame.payload); });
        }
    });
    return 0;
}
