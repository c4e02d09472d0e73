#include "kernels/threads.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace cube {

namespace {

constexpr unsigned kThreadsMax = 4;
constexpr int kNice = 5;

// Who answers requests meanwhile comes first. In Linux a thread has a priority of its own.
void yield_to_others() { ::setpriority(PRIO_PROCESS, 0, ::getpriority(PRIO_PROCESS, 0) + kNice); }

class Turns {
  public:
    Turns(uint64_t count, uint64_t turn,
          const std::function<void(uint64_t first, uint64_t end)>& work)
        : count_(count), turn_(turn), work_(work) {}

    void take_all() {
        for (;;) {
            const uint64_t first = next_.fetch_add(turn_, std::memory_order_relaxed);
            if (first >= count_) return;
            try {
                work_(first, std::min(first + turn_, count_));
            } catch (...) {
                stop(first);
                return;
            }
        }
    }
    void rethrow() const {
        if (failure_ != nullptr) std::rethrow_exception(failure_);
    }

  private:
    void stop(uint64_t first) {
        const std::lock_guard lock(mutex_);
        if (first < failed_at_) {
            failed_at_ = first;
            failure_ = std::current_exception();
        }
        next_.store(count_, std::memory_order_relaxed);
    }

    const uint64_t count_;
    const uint64_t turn_;
    const std::function<void(uint64_t first, uint64_t end)>& work_;
    std::atomic<uint64_t> next_{0};
    std::mutex mutex_;
    uint64_t failed_at_ = std::numeric_limits<uint64_t>::max();
    std::exception_ptr failure_;
};

}  // namespace

void in_threads(uint64_t count, uint64_t turn,
                const std::function<void(uint64_t first, uint64_t end)>& work) {
    Turns turns(count, turn, work);
    const uint64_t cores = std::clamp(std::thread::hardware_concurrency(), 1u, kThreadsMax);
    const uint64_t wanted = std::min(cores, (count + turn - 1) / turn);
    std::vector<std::thread> threads;
    try {
        while (wanted > 1 && threads.size() < wanted)
            threads.emplace_back([&] {
                yield_to_others();
                turns.take_all();
            });
    } catch (const std::system_error&) {
        // No more threads are to be had: those there are do it all.
    }
    if (threads.empty()) turns.take_all();
    for (std::thread& thread : threads) thread.join();
    turns.rethrow();
}

}  // namespace cube
