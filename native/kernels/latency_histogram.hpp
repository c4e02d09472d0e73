#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace cube {

// How long requests took, in buckets with fixed bounds. Thread-safe.
class LatencyHistogram {
  public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::array<uint32_t, 13> kBoundsUs = {
        10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

    // `requests` of them took that long each.
    void add(Clock::duration elapsed, uint64_t requests) {
        const auto ns = static_cast<uint64_t>(
            std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count());
        size_t bucket = 0;
        while (bucket < kBoundsUs.size() && ns > uint64_t{kBoundsUs[bucket]} * 1000) ++bucket;
        buckets_[bucket].fetch_add(requests, std::memory_order_relaxed);
        sum_ns_.fetch_add(ns * requests, std::memory_order_relaxed);
    }
    // Requests of a bucket that are in none below; the last bucket has no bound.
    uint64_t count(size_t bucket) const { return buckets_[bucket].load(std::memory_order_relaxed); }
    uint64_t sum_ns() const { return sum_ns_.load(std::memory_order_relaxed); }

  private:
    std::array<std::atomic<uint64_t>, kBoundsUs.size() + 1> buckets_{};
    std::atomic<uint64_t> sum_ns_{0};
};

}  // namespace cube
