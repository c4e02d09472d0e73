// A CTR request: what parses comes back the same after it is written again.

#include <algorithm>
#include <cstring>
#include <vector>

#include "fuzz/target.hpp"
#include "kernels/ctr_codec.hpp"
#include "kernels/ctr_frames.hpp"

using namespace cube;

// A request is taken with others exactly when it would be taken alone, and does nothing to them.
static void take_together(Bytes payload) {
    constexpr CtrColumns kColumns{3, 2};
    const int64_t ids[3] = {1, -2, 3};
    const float floats[2] = {0.5F, 1.5F};
    std::vector<uint8_t> good(ctr_request_size(1, kColumns, ids));
    encode_ctr_request(1, kColumns, ids, floats, good.data());
    Frame frame;
    CtrFrames frames(kColumns);
    frame.payload = good;
    fuzz::require(frames.add(frame, 1000) == CtrFrames::Added::kYes, "a good request is taken");
    frame.payload = payload;
    const bool taken = frames.add(frame, 1000) == CtrFrames::Added::kYes;
    frame.payload = good;
    fuzz::require(frames.add(frame, 1002) == CtrFrames::Added::kYes, "so is the next");
    fuzz::require(frames.requests().size() == (taken ? 3U : 2U), "each is counted");
    const CtrFrames last = frames.part(frames.requests().size() - 1, 1);
    fuzz::require(std::equal(ids, ids + 3, last.sparse_ids()), "rows stay with their request");
    std::vector<float> probabilities(2 * frames.rows(), 0.5F);
    std::vector<uint8_t> answers(frames.responses_size());
    fuzz::require(frames.write_responses(probabilities.data(), answers.data()) ==
                      answers.data() + answers.size(),
                  "answers have the size that was told");
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr size_t kRowsMax = 1000;
    const Bytes payload(data, size);
    for (const CtrColumns columns : {CtrColumns{3, 2}, CtrColumns{1, 0}, CtrColumns{26, 13}})
        fuzz::refuse_or_pass({ErrorKind::kWire, ErrorKind::kLimit}, [&] {
            const size_t rows = count_ctr_instances(payload, kRowsMax);
            std::vector<int64_t> ids(rows * columns.slots);
            std::vector<float> floats(rows * columns.dense);
            parse_ctr_request(payload, columns, ids.data(), floats.data());
            std::vector<uint8_t> again(ctr_request_size(rows, columns, ids.data()));
            encode_ctr_request(rows, columns, ids.data(), floats.data(), again.data());
            fuzz::require(count_ctr_instances(again, kRowsMax) == rows, "rows come back");
            std::vector<int64_t> same_ids(ids.size());
            std::vector<float> same_floats(floats.size());
            parse_ctr_request(again, columns, same_ids.data(), same_floats.data());
            fuzz::require(same_ids == ids, "ids come back");
            fuzz::require(floats.empty() || std::memcmp(floats.data(), same_floats.data(),
                                                        floats.size() * sizeof(float)) == 0,
                          "floats come back");
        });
    fuzz::refuse_or_pass({ErrorKind::kWire}, [&] { parse_ctr_response(payload); });
    take_together(payload);
    return 0;
}
