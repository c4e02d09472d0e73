// A SequenceFile of any dialect, read to its end.

#include <vector>

#include "fuzz/target.hpp"
#include "kernels/sequence_file.hpp"
#include "kernels/sequence_pair.hpp"

using namespace cube;

namespace {

// Stands in for every codec: bytes come out as they are, so that mutations reach the records.
std::vector<uint8_t> as_it_is(std::span<const uint8_t> bytes, size_t bytes_max) {
    if (bytes.size() > bytes_max) throw RecordFault("over bytes_max");
    return {bytes.begin(), bytes.end()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static fuzz::MemoryFile file;
    file.replace({data, size});
    fuzz::refuse_or_pass({ErrorKind::kSequenceFile}, [&] {
        SequenceFileReader reader(file.path(), [](const std::string&) { return as_it_is; });
        size_t pairs = 0;
        for (;;) {
            const SequenceBatch batch = reader.read(64);
            if (batch.count == 0) break;
            fuzz::require(batch.count <= 64 && batch.width == reader.width(), "a batch's shape");
            pairs += batch.count;
        }
        fuzz::require(pairs * 8 <= size, "every pair stands in the file");
    });
    fuzz::refuse_or_pass({ErrorKind::kSequenceFile}, [&] {
        SequenceFileReader reader(file.path(), [](const std::string&) { return as_it_is; });
        for (;;) {
            const SequenceBytesBatch batch = reader.read_bytes(64, 1 << 16);
            if (batch.keys.empty()) break;
            fuzz::require(batch.offsets.size() == batch.keys.size() + 1 &&
                              batch.offsets.back() == static_cast<int64_t>(batch.values.size()),
                          "a batch's shape");
        }
    });
    return 0;
}
