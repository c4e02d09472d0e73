#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ctr_codec.hpp"
#include "kernels/frame.hpp"

namespace cube {

// Whether a frame is a CTRPredictionService.inference without anything beside its payload.
bool is_plain_inference(const Frame& frame);

// Requests for predictions that came together, their rows one after the other.
class CtrFrames {
  public:
    struct Request {
        int64_t correlation_id;
        int64_t log_id;      // 0 for none
        int32_t timeout_ms;  // 0 for none
        size_t rows_end;     // its rows end where those of the next begin
    };

    explicit CtrFrames(CtrColumns columns) : columns_(columns) {}

    enum class Added : uint8_t { kYes, kFull, kRefused };

    // Adds the request of a plain inference, unless all rows would be more than `rows_max`: kFull.
    // kRefused when it has no instance, alone more than `rows_max`, or is malformed: whoever
    // answers it tells why.
    Added add(const Frame& frame, size_t rows_max);
    // The requests from `first` on, `count` of them, by themselves.
    CtrFrames part(size_t first, size_t count) const;

    size_t rows() const { return requests_.empty() ? 0 : requests_.back().rows_end; }
    CtrColumns columns() const { return columns_; }
    std::span<const Request> requests() const { return requests_; }
    const int64_t* sparse_ids() const { return ids_.data(); }
    const float* dense_ids() const { return floats_.data(); }
    // The smallest of those that are set; 0 when none is.
    int32_t timeout_ms_min() const;

    // Bytes of the response frames to all requests, and the frames; `probabilities` is [rows, 2].
    size_t responses_size() const;
    uint8_t* write_responses(const float* probabilities, uint8_t* target) const;

  private:
    size_t rows_begin(size_t request) const {
        return request == 0 ? 0 : requests_[request - 1].rows_end;
    }

    CtrColumns columns_;
    std::vector<Request> requests_;
    std::vector<int64_t> ids_;
    std::vector<float> floats_;
};

}  // namespace cube
