// DictRequest: what parses comes back the same after it is written again, and is answered.

#include "fuzz/served.hpp"
#include "kernels/seek_request.hpp"

using namespace cube;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr size_t kKeysMax = 1000;
    static Seeker& seeker = *new Seeker(kKeysMax, 1 << 20);
    static const bool loaded = (seeker.set_tables("", fuzz::sample_table(), {}), true);
    (void)loaded;
    fuzz::refuse_or_pass({ErrorKind::kWire, ErrorKind::kLimit, ErrorKind::kVersionNotLoaded}, [&] {
        std::vector<uint64_t> keys;
        const SeekRequest request = parse_seek_request({data, size}, kKeysMax, keys);
        fuzz::require(keys.size() == request.key_count, "key_count counts the keys");
        const SeekOptions options{request.version, request.version_required};
        fuzz::ByteVector again(seek_request_size(keys, options));
        write_seek_request(again.data(), keys, options);
        std::vector<uint64_t> same;
        parse_seek_request(again, kKeysMax, same);
        fuzz::require(same == keys, "keys come back");
        fuzz::serve(seeker, {data, size});
    });
    return 0;
}
