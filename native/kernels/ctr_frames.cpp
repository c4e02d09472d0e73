#include "kernels/ctr_frames.hpp"

#include <algorithm>

#include "kernels/error.hpp"

namespace cube {

namespace {

constexpr std::string_view kFullName =
    "baidu.paddle_serving.predictor.ctr_prediction.CTRPredictionService";
constexpr std::string_view kShortName = "CTRPredictionService";

}  // namespace

bool is_plain_inference(const Frame& frame) {
    return frame.is_request && frame.method == "inference" &&
           (frame.service == kFullName || frame.service == kShortName) &&
           frame.compress_type == 0 && frame.attachment.empty() && frame.fault.empty();
}

CtrFrames::Added CtrFrames::add(const Frame& frame, size_t rows_max) {
    const size_t begin = rows();
    try {
        const size_t count = count_ctr_instances(frame.payload, rows_max);
        if (count == 0) return Added::kRefused;
        if (begin + count > rows_max) return Added::kFull;
        const size_t end = begin + count;
        ids_.resize(end * columns_.slots);
        floats_.resize(end * columns_.dense);
        parse_ctr_request(frame.payload, columns_, ids_.data() + begin * columns_.slots,
                          floats_.data() + begin * columns_.dense);
        requests_.push_back(
            {frame.correlation_id, frame.log_id, std::max(frame.timeout_ms, 0), end});
        return Added::kYes;
    } catch (const Error&) {
        ids_.resize(begin * columns_.slots);
        floats_.resize(begin * columns_.dense);
        return Added::kRefused;
    }
}

CtrFrames CtrFrames::part(size_t first, size_t count) const {
    CtrFrames taken(columns_);
    const size_t begin = rows_begin(first);
    const size_t end = requests_[first + count - 1].rows_end;
    const auto cells = [&](const auto& all, size_t columns) {
        return std::span(all).subspan(begin * columns, (end - begin) * columns);
    };
    const auto ids = cells(ids_, columns_.slots);
    const auto floats = cells(floats_, columns_.dense);
    taken.ids_.assign(ids.begin(), ids.end());
    taken.floats_.assign(floats.begin(), floats.end());
    for (Request request : std::span(requests_).subspan(first, count)) {
        request.rows_end -= begin;
        taken.requests_.push_back(request);
    }
    return taken;
}

int32_t CtrFrames::timeout_ms_min() const {
    int32_t least = 0;
    for (const Request& request : requests_)
        if (request.timeout_ms > 0 && (least == 0 || request.timeout_ms < least))
            least = request.timeout_ms;
    return least;
}

size_t CtrFrames::responses_size() const {
    size_t size = 0;
    size_t begin = 0;
    for (const Request& request : requests_) {
        size += response_head_size(request.correlation_id, 0) +
                ctr_response_size(request.rows_end - begin, 0, {});
        begin = request.rows_end;
    }
    return size;
}

uint8_t* CtrFrames::write_responses(const float* probabilities, uint8_t* target) const {
    size_t begin = 0;
    for (const Request& request : requests_) {
        const size_t rows = request.rows_end - begin;
        const size_t payload_size = ctr_response_size(rows, 0, {});
        target = write_response_head(target, request.correlation_id, payload_size, 0);
        encode_ctr_response(rows, probabilities + 2 * begin, 0, {}, target);
        target += payload_size;
        begin = request.rows_end;
    }
    return target;
}

}  // namespace cube
