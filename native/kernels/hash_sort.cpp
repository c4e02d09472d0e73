#include "kernels/hash_sort.hpp"

#include <algorithm>
#include <bit>
#include <vector>

#include "kernels/hash_index.hpp"

namespace cube {

namespace {

// Hashes are uniform, so their upper bits spread them evenly: first over ranges that fit the
// cache, then inside a range over bins of about one hash.
constexpr uint64_t kRangeKeys = uint64_t{1} << 16;

bool before(const HashedKey& a, const HashedKey& b) {
    return a.hash != b.hash ? a.hash < b.hash : a.input < b.input;
}

void insertion_sort(std::span<HashedKey> items) {
    for (size_t i = 1; i < items.size(); ++i) {
        const HashedKey item = items[i];
        size_t j = i;
        for (; j > 0 && before(item, items[j - 1]); --j) items[j] = items[j - 1];
        items[j] = item;
    }
}

class RangeSorter {
  public:
    // `range_bits` upper bits of the hash are equal inside a range.
    explicit RangeSorter(unsigned range_bits) : range_bits_(range_bits) {}

    void sort(std::span<HashedKey> range) {
        constexpr size_t kInsertionMax = 24;
        if (range.size() <= kInsertionMax) return insertion_sort(range);
        const unsigned bin_bits =
            std::min(static_cast<unsigned>(std::bit_width(range.size())), 64 - range_bits_);
        const auto bin_of = [&](const HashedKey& item) {
            return (item.hash << range_bits_) >> (64 - bin_bits);
        };
        ends_.assign((size_t{1} << bin_bits) + 1, 0);
        for (const HashedKey& item : range) ++ends_[bin_of(item) + 1];
        for (size_t bin = 1; bin < ends_.size(); ++bin) ends_[bin] += ends_[bin - 1];
        scratch_.assign(range.begin(), range.end());
        for (const HashedKey& item : scratch_) range[ends_[bin_of(item)]++] = item;
        sort_bins(range);
    }

  private:
    void sort_bins(std::span<HashedKey> range) {
        uint32_t begin = 0;
        for (const uint32_t end : ends_) {
            const auto bin = range.subspan(begin, std::max(end, begin) - begin);
            // A bin is large only when one key comes many times.
            if (bin.size() > 64) {
                std::sort(bin.begin(), bin.end(), before);
            } else if (bin.size() > 1) {
                insertion_sort(bin);
            }
            begin = std::max(end, begin);
        }
    }

    unsigned range_bits_;
    std::vector<uint32_t> ends_;
    std::vector<HashedKey> scratch_;
};

}  // namespace

LargeVector<HashedKey> sorted_hashes(std::span<const uint64_t> keys, uint64_t seed) {
    const unsigned range_bits = static_cast<unsigned>(std::bit_width(keys.size() / kRangeKeys));
    const auto range_of = [&](uint64_t h) { return range_bits == 0 ? 0 : h >> (64 - range_bits); };

    std::vector<uint64_t> starts((size_t{1} << range_bits) + 1, 0);
    for (const uint64_t key : keys) ++starts[range_of(HashIndex::hash(key, seed)) + 1];
    for (size_t range = 1; range < starts.size(); ++range) starts[range] += starts[range - 1];

    LargeVector<HashedKey> items(keys.size());
    std::vector<uint64_t> at(starts.begin(), starts.end() - 1);
    for (size_t i = 0; i < keys.size(); ++i) {
        const uint64_t h = HashIndex::hash(keys[i], seed);
        items[at[range_of(h)]++] = {h, static_cast<uint32_t>(i)};
    }

    RangeSorter sorter(range_bits);
    for (size_t range = 0; range + 1 < starts.size(); ++range)
        sorter.sort(std::span(items).subspan(starts[range], starts[range + 1] - starts[range]));

    size_t kept = 0;
    for (const HashedKey& item : items) {
        if (kept > 0 && items[kept - 1].hash == item.hash) --kept;
        items[kept++] = item;
    }
    items.resize(kept);
    return items;
}

}  // namespace cube
