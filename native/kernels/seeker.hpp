#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/frame.hpp"
#include "kernels/latency_histogram.hpp"
#include "kernels/seek_request.hpp"
#include "kernels/seek_response.hpp"
#include "kernels/table.hpp"

namespace cube {

using TablePointer = std::shared_ptr<const Table>;

// A request parsed and bound to the table that answers it; `write_response` cannot fail.
struct PreparedSeek {
    TablePointer table;
    std::vector<uint64_t>* keys = nullptr;
    size_t keys_begin = 0;
    SeekRequest request;
    FoundValues found;  // of a table of variable width, whose lookup is done then
    size_t response_size_max = 0;
};

// Answers DictService from the tables of the loaded versions of one dict or of several.
// Thread-safe.
class Seeker {
  public:
    Seeker(size_t keys_per_request_max, size_t frame_bytes_max)
        : keys_per_request_max_(keys_per_request_max), frame_bytes_max_(frame_bytes_max) {}

    // Replaces what a dict is answered from. The dict that is named first answers requests that
    // name none; its name may be empty, which stands for that of its tables.
    void set_tables(std::string_view dict_name, TablePointer current,
                    std::vector<TablePointer> others);

    // Parses DictRequest bytes, appends its keys to `keys` (which must outlive the result) and
    // picks the table. Throws kWire, kLimit or kVersionNotLoaded, which are counted.
    PreparedSeek prepare(Bytes payload, std::vector<uint64_t>& keys);
    // Whether `prepare` may take as long as `write_response`: there are tables of variable width.
    bool looks_up_early() const { return looks_up_early_.load(std::memory_order_relaxed); }
    // Writes DictResponse into `target`, which has room for response_size_max +
    // kSeekResponseSlack, and returns its size.
    size_t write_response(const PreparedSeek& seek, uint8_t* target);

    // A seek that came in a frame and was answered with an error frame.
    struct Failure {
        uint64_t number = 0;  // of those so far
        int64_t log_id = 0;
        int64_t correlation_id = 0;
        std::string text;
    };
    void note_failure(const Frame& frame, std::string_view text);
    Failure last_failure() const;

    size_t frame_bytes_max() const { return frame_bytes_max_; }
    uint64_t request_count() const { return requests_.load(std::memory_order_relaxed); }
    uint64_t key_count() const { return keys_.load(std::memory_order_relaxed); }
    uint64_t missing_count() const { return missing_.load(std::memory_order_relaxed); }
    uint64_t error_count() const { return errors_.load(std::memory_order_relaxed); }
    uint64_t request_bytes() const { return request_bytes_.load(std::memory_order_relaxed); }
    uint64_t response_bytes() const { return response_bytes_.load(std::memory_order_relaxed); }
    LatencyHistogram& latencies() { return latencies_; }

  private:
    struct Dict {
        std::string name;
        TablePointer current;
        std::vector<TablePointer> others;

        bool is_named(std::string_view wanted) const;
    };
    using Dicts = std::vector<Dict>;

    PreparedSeek parse_and_pick(Bytes payload, std::vector<uint64_t>& keys) const;
    void measure(PreparedSeek& seek) const;
    std::shared_ptr<const Dicts> dicts() const;
    TablePointer pick(const SeekRequest& request) const;
    static const Dict& dict_of(const Dicts& dicts, const SeekRequest& request);

    const size_t keys_per_request_max_;
    const size_t frame_bytes_max_;
    mutable std::mutex mutex_;  // of the pointer, not of the tables
    std::shared_ptr<const Dicts> dicts_ = std::make_shared<Dicts>();
    mutable std::mutex failure_mutex_;
    Failure failure_;
    std::atomic<bool> looks_up_early_{false};
    std::atomic<uint64_t> requests_{0};
    std::atomic<uint64_t> keys_{0};
    std::atomic<uint64_t> missing_{0};
    std::atomic<uint64_t> errors_{0};
    std::atomic<uint64_t> request_bytes_{0};
    std::atomic<uint64_t> response_bytes_{0};
    LatencyHistogram latencies_;
};

// The error frame that answers a seek that failed; its text begins as brpc's servers begin it, with
// `[address][E<code>]`, unless `address` is empty.
std::string seek_error_frame(const Error& error, int64_t correlation_id, size_t request_size,
                             std::string_view address);

// Whether a frame is a plain DictService.seek, which the kernel answers by itself.
bool is_plain_seek(const Frame& frame);

}  // namespace cube
