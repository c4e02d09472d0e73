#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/protobuf.hpp"

namespace cube {

inline constexpr int32_t kStatusFound = 0;
inline constexpr int32_t kStatusMissing = -1;
inline constexpr int32_t kStatusWrongWidth = -2;
inline constexpr int32_t kStatusFailed = -3;
inline constexpr int32_t kStatusDeleted = -4;

// Where the answers of a batch go: one row of `dim` float32 and one status a key.
struct SeekTarget {
    float* rows = nullptr;
    size_t dim = 0;
    int32_t* status = nullptr;
};

// One batch of keys, cut over the shards by key % shard_num. A key that is repeated is asked for
// once, for its first place.
class SeekPlan {
  public:
    // Throws std::invalid_argument for shard_num 0 or over kShardNumMax, or 2^32 keys or more.
    SeekPlan(std::span<const uint64_t> keys, uint32_t shard_num);

    size_t batch_size() const { return batch_size_; }
    // The shards that own a key, ascending.
    std::vector<uint32_t> shards() const;
    // All that take a shard throw std::invalid_argument when it is not below shard_num.
    std::span<const uint64_t> keys_of(uint32_t shard) const;
    // Where those keys were first in the batch.
    std::span<const uint32_t> positions_of(uint32_t shard) const;
    // Copies what was decoded for a shard to the other places of its repeated keys.
    void spread(uint32_t shard, const SeekTarget& target) const;
    // The same for an array of one item a key of the batch.
    template <class Item>
    void spread(uint32_t shard, std::span<Item> items) const {
        for (const auto [position, first] : repeats_of(shard)) items[position] = items[first];
    }
    // Gives all keys of a shard zeros and kStatusFailed.
    void fail(uint32_t shard, const SeekTarget& target) const;

    static constexpr uint32_t kShardNumMax = uint32_t{1} << 20;

  private:
    struct Repeat {
        uint32_t position;
        uint32_t first;
    };

    void check_shard(uint32_t shard) const;
    size_t count_of(uint32_t shard) const {
        return begins_[size_t{shard} + 1] - begins_[shard] - 1;
    }
    std::span<const Repeat> repeats_of(uint32_t shard) const;

    size_t batch_size_;
    std::vector<uint64_t> keys_;         // by shard, in the order of the batch, one to spare each
    std::vector<uint32_t> positions_;    // of each of keys_
    std::vector<size_t> begins_;         // shard -> its first key
    std::vector<Repeat> repeats_;        // by shard, one to spare each
    std::vector<size_t> repeat_begins_;  // shard -> its first repeat
};

struct SeekOptions {
    std::string_view version;  // pinned when not empty
    bool version_required = false;
    std::string_view dict_name;  // left out when empty
};

size_t seek_request_size(std::span<const uint64_t> keys, const SeekOptions& options);
// Writes DictRequest (seek_request_size bytes) and returns its end.
uint8_t* write_seek_request(uint8_t* target, std::span<const uint64_t> keys,
                            const SeekOptions& options);

struct SeekVersion {
    bool present = false;
    std::string_view name;
};

// Reads DictResponse `body`, whose i-th value goes to row positions[i]. Throws Error(kWire) when
// it is malformed or has another number of values.
SeekVersion decode_seek_response(Bytes body, std::span<const uint32_t> positions,
                                 const SeekTarget& target);

// Width of the first found value in DictResponse `body`; 0 when none is found.
size_t first_value_size(Bytes body);

}  // namespace cube
