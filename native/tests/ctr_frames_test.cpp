#include "kernels/ctr_frames.hpp"

#include "tests/check.hpp"

namespace cube::tests {

TEST(requests_taken_together_keep_their_rows) {
    Random random(95);
    constexpr CtrColumns kColumns{5, 2};
    CtrFrames frames(kColumns);
    std::vector<std::vector<int64_t>> ids;
    size_t rows = 0;
    for (int64_t number = 0; number < 20; ++number) {
        const size_t count = 1 + random.below(4);
        std::vector<int64_t>& mine = ids.emplace_back(count * kColumns.slots);
        for (int64_t& id : mine) id = static_cast<int64_t>(random.key());
        const std::vector<float> floats(count * kColumns.dense, 0.5F);
        std::vector<uint8_t> payload(ctr_request_size(count, kColumns, mine.data()));
        encode_ctr_request(count, kColumns, mine.data(), floats.data(), payload.data());
        Frame frame;
        frame.correlation_id = number;
        frame.timeout_ms = static_cast<int32_t>(number % 3 * 100);
        const ExactBytes exact(payload);
        frame.payload = exact.span();
        CHECK(frames.add(frame, rows + count - 1) != CtrFrames::Added::kYes);
        CHECK(frames.add(frame, 1000) == CtrFrames::Added::kYes);
        frame.payload = exact.span().first(payload.size() - 1);
        CHECK(frames.add(frame, 1000) == CtrFrames::Added::kRefused);
        rows += count;
        CHECK(frames.rows() == rows);
    }
    CHECK(frames.timeout_ms_min() == 100);
    for (size_t number = 0; number < ids.size(); ++number) {
        const CtrFrames part = frames.part(number, 1);
        CHECK(part.rows() * kColumns.slots == ids[number].size());
        CHECK(std::equal(ids[number].begin(), ids[number].end(), part.sparse_ids()));
    }
    const std::vector<float> probabilities(2 * rows, 0.25F);
    std::vector<uint8_t> answers(frames.responses_size());
    CHECK(frames.write_responses(probabilities.data(), answers.data()) ==
          answers.data() + answers.size());
}

}  // namespace cube::tests
