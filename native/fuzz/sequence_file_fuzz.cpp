// A SequenceFile of any dialect, read to its end.

#include "fuzz/target.hpp"
#include "kernels/sequence_file.hpp"

using namespace cube;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static fuzz::MemoryFile file;
    file.replace({data, size});
    fuzz::refuse_or_pass({ErrorKind::kSequenceFile}, [&] {
        SequenceFileReader reader(file.path());
        size_t pairs = 0;
        for (;;) {
            const SequenceBatch batch = reader.read(64);
            if (batch.count == 0) break;
            fuzz::require(batch.count <= 64 && batch.width == reader.width(), "a batch's shape");
            pairs += batch.count;
        }
        fuzz::require(pairs * 8 <= size, "every pair stands in the file");
    });
    return 0;
}
