#include "kernels/index_builder.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>

#include "kernels/hash_sort.hpp"
#include "kernels/part_builder.hpp"

namespace cube {

namespace {

constexpr uint64_t kPartKeys = uint64_t{1} << 18;
// Two and a half keys a bucket: at three, finding the pilots takes twice as long.
constexpr uint64_t kKeysOfTwoBuckets = 5;
constexpr uint64_t kSlackDivisor = 50;  // one slot in fifty stays free
constexpr uint32_t kNoInput = std::numeric_limits<uint32_t>::max();
// A seed fails for about one small table in a thousand, so this many never do.
constexpr uint64_t kSeedsMax = 256;

uint64_t ceil_div(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

std::vector<size_t> part_starts(const HashIndex& index, std::span<const HashedKey> items) {
    std::vector<size_t> starts(size_t{index.parts} + 1, items.size());
    size_t at = 0;
    for (uint32_t part = 0; part < index.parts; ++part) {
        starts[part] = at;
        const auto end = std::partition_point(
            items.begin() + static_cast<ptrdiff_t>(at), items.end(),
            [&](const HashedKey& item) { return index.part_of(item.hash) <= part; });
        at = static_cast<size_t>(end - items.begin());
    }
    return starts;
}

// Slots for the fullest part too, whose keys outnumber the average by a fraction of a percent.
uint32_t slots_per_part(std::span<const size_t> starts) {
    const size_t parts = starts.size() - 1;
    size_t fullest = 0;
    for (size_t part = 0; part < parts; ++part)
        fullest = std::max(fullest, starts[part + 1] - starts[part]);
    const uint64_t average = ceil_div(starts.back(), parts);
    const uint64_t slots = std::max(average + average / (kSlackDivisor - 1) + 1,
                                    fullest + fullest / (2 * kSlackDivisor) + 1);
    return static_cast<uint32_t>(slots);
}

LargeVector<uint32_t> rows_of_slots(const BuiltIndex& built, std::span<const HashedKey> items) {
    LargeVector<uint32_t> inputs(built.index.slot_count(), kNoInput);
    for (const HashedKey& item : items) {
        const uint8_t pilot = built.pilots[built.index.bucket_of(item.hash)];
        inputs[built.index.slot_of(item.hash, pilot)] = item.input;
    }
    return inputs;
}

// Moves what is owned from `key_count` on to the rows that nobody owns.
void fold_tail(BuiltIndex& built, size_t key_count) {
    LargeVector<uint32_t>& inputs = built.input_of_row;
    built.remap.assign(inputs.size() - key_count, 0);
    size_t free = 0;
    for (size_t slot = key_count; slot < inputs.size(); ++slot) {
        if (inputs[slot] == kNoInput) continue;
        while (inputs[free] != kNoInput) ++free;
        inputs[free] = inputs[slot];
        built.remap[slot - key_count] = static_cast<uint32_t>(free);
    }
    inputs.resize(key_count);
}

std::optional<BuiltIndex> try_seed(std::span<const uint64_t> keys, const IsLeftOut& is_left_out,
                                   uint64_t seed) {
    LargeVector<HashedKey> items = sorted_hashes(keys, seed);
    BuiltIndex built;
    built.duplicate_count = keys.size() - items.size();
    if (is_left_out != nullptr)
        std::erase_if(items, [&](const HashedKey& item) { return is_left_out(item.input); });
    if (items.empty()) return built;
    built.index.seed = seed;
    built.index.parts = static_cast<uint32_t>(ceil_div(items.size(), kPartKeys));
    const std::vector<size_t> starts = part_starts(built.index, items);
    built.index.slots_per_part = slots_per_part(starts);
    built.index.buckets_per_part =
        static_cast<uint32_t>(ceil_div(2 * items.size(), built.index.parts * kKeysOfTwoBuckets));
    built.pilots.resize(built.index.bucket_count());
    PartBuilder builder(built.index);
    for (uint32_t part = 0; part < built.index.parts; ++part) {
        const auto own = std::span(items).subspan(starts[part], starts[part + 1] - starts[part]);
        if (!builder.build(own, &built.pilots[size_t{part} * built.index.buckets_per_part]))
            return std::nullopt;
    }
    built.input_of_row = rows_of_slots(built, items);
    fold_tail(built, items.size());
    return built;
}

}  // namespace

BuiltIndex build_index(std::span<const uint64_t> keys, const IsLeftOut& is_left_out) {
    if (keys.size() > kKeyCountMax)
        throw std::invalid_argument("a table takes at most " + std::to_string(kKeyCountMax) +
                                    " pairs, not " + std::to_string(keys.size()) +
                                    ": use more shards");
    if (keys.empty()) return {};
    for (uint64_t attempt = 0; attempt < kSeedsMax; ++attempt)
        if (auto built = try_seed(keys, is_left_out, HashIndex::seed_of(attempt)))
            return *std::move(built);
    throw std::runtime_error("no seed places these " + std::to_string(keys.size()) + " keys");
}

}  // namespace cube
