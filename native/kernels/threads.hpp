#pragma once

#include <cstdint>
#include <functional>

namespace cube {

// Calls work(first, end) for all of [0, count) in turns of `turn` items, in as many threads as
// there are cores (at most 4), and in the calling one alone when that is enough. Waits for all;
// what the earliest failing turn threw is thrown again, and turns that have not begun are left out.
void in_threads(uint64_t count, uint64_t turn,
                const std::function<void(uint64_t first, uint64_t end)>& work);

}  // namespace cube
