#include "kernels/seek_plan.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/dict_value.hpp"

namespace cube {

namespace {

__extension__ using Wide = unsigned __int128;

// key % shard_num, without the division, which takes some ten times as long.
class Owner {
  public:
    explicit Owner(uint32_t shard_num)
        : shard_num_(shard_num), inverse_(std::numeric_limits<uint64_t>::max() / shard_num) {}
    uint32_t of(uint64_t key) const {
        // The quotient, or one less: `inverse_` is less than one below 2^64 / shard_num, or one.
        const auto quotient = static_cast<uint64_t>((Wide{key} * inverse_) >> 64);
        const uint64_t rest = key - quotient * shard_num_;
        return static_cast<uint32_t>(rest >= shard_num_ ? rest - shard_num_ : rest);
    }

  private:
    uint64_t shard_num_;
    uint64_t inverse_;
};

// For each key the place of the first one that equals it: its own unless it is repeated. Which keys
// are repeated cannot be foretold, so that nothing branches on it.
std::vector<uint32_t> first_places(std::span<const uint64_t> keys) {
    constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;
    const size_t slot_num = std::bit_ceil(2 * keys.size() + 2);
    const int shift = 64 - std::countr_zero(slot_num);
    std::vector<uint32_t> slots(slot_num, 0);  // place + 1
    std::vector<uint32_t> firsts(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
        const uint64_t mixed = (keys[i] ^ (keys[i] >> 32)) * kGolden;
        size_t slot = mixed >> shift;
        uint32_t found = slots[slot];
        while (found != 0 && keys[found - 1] != keys[i]) {
            slot = (slot + 1) & (slot_num - 1);
            found = slots[slot];
        }
        found = found == 0 ? static_cast<uint32_t>(i + 1) : found;
        slots[slot] = found;
        firsts[i] = found - 1;
    }
    return firsts;
}

// Turns counts, of which the one of item i is at i + 1, into the begin of each item, with a place
// to spare behind each.
void sum_up(std::vector<size_t>& counts) {
    for (size_t i = 1; i < counts.size(); ++i) counts[i] += counts[i - 1] + 1;
}

}  // namespace

SeekPlan::SeekPlan(std::span<const uint64_t> keys, uint32_t shard_num) : batch_size_(keys.size()) {
    if (shard_num == 0 || shard_num > kShardNumMax)
        throw std::invalid_argument("shard_num " + std::to_string(shard_num) + " is not 1 to " +
                                    std::to_string(kShardNumMax));
    if (keys.size() >= std::numeric_limits<uint32_t>::max())
        throw std::invalid_argument("a batch takes at most 4294967294 keys");
    const Owner owner(shard_num);
    const std::vector<uint32_t> firsts = first_places(keys);
    begins_.assign(size_t{shard_num} + 1, 0);
    repeat_begins_.assign(size_t{shard_num} + 1, 0);
    for (size_t i = 0; i < keys.size(); ++i) {
        const size_t shard = owner.of(keys[i]);
        const bool is_first = firsts[i] == i;
        begins_[shard + 1] += is_first ? 1 : 0;
        repeat_begins_[shard + 1] += is_first ? 0 : 1;
    }
    sum_up(begins_);
    sum_up(repeat_begins_);
    keys_.resize(begins_.back());
    positions_.resize(begins_.back());
    repeats_.resize(repeat_begins_.back());
    std::vector<size_t> at(begins_.begin(), begins_.end() - 1);
    std::vector<size_t> repeat_at(repeat_begins_.begin(), repeat_begins_.end() - 1);
    // Each key is written to both; what does not belong there is overwritten by the next one, and
    // the last by none, for which there is the place to spare.
    for (size_t i = 0; i < keys.size(); ++i) {
        const size_t shard = owner.of(keys[i]);
        const bool is_first = firsts[i] == i;
        keys_[at[shard]] = keys[i];
        positions_[at[shard]] = static_cast<uint32_t>(i);
        at[shard] += is_first ? 1 : 0;
        repeats_[repeat_at[shard]] = {static_cast<uint32_t>(i), firsts[i]};
        repeat_at[shard] += is_first ? 0 : 1;
    }
}

void SeekPlan::spread(uint32_t shard, const SeekTarget& target) const {
    for (const auto [position, first] : repeats_of(shard)) {
        std::copy_n(target.rows + first * target.dim, target.dim,
                    target.rows + position * target.dim);
        target.status[position] = target.status[first];
    }
}

void SeekPlan::fail(uint32_t shard, const SeekTarget& target) const {
    for (const uint32_t position : positions_of(shard)) {
        std::fill_n(target.rows + position * target.dim, target.dim, 0.0F);
        target.status[position] = kStatusFailed;
    }
    spread(shard, target);
}

std::vector<uint32_t> SeekPlan::shards() const {
    std::vector<uint32_t> owners;
    for (uint32_t shard = 0; shard + 1 < begins_.size(); ++shard)
        if (count_of(shard) > 0) owners.push_back(shard);
    return owners;
}

void SeekPlan::check_shard(uint32_t shard) const {
    const size_t shard_num = begins_.size() - 1;
    if (shard >= shard_num)
        throw std::invalid_argument("shard " + std::to_string(shard) + " is not below shard_num " +
                                    std::to_string(shard_num));
}

std::span<const uint64_t> SeekPlan::keys_of(uint32_t shard) const {
    check_shard(shard);
    return std::span(keys_).subspan(begins_[shard], count_of(shard));
}

std::span<const uint32_t> SeekPlan::positions_of(uint32_t shard) const {
    check_shard(shard);
    return std::span(positions_).subspan(begins_[shard], count_of(shard));
}

std::span<const SeekPlan::Repeat> SeekPlan::repeats_of(uint32_t shard) const {
    check_shard(shard);
    const size_t begin = repeat_begins_[shard];
    return std::span(repeats_).subspan(begin, repeat_begins_[size_t{shard} + 1] - begin - 1);
}

size_t seek_request_size(std::span<const uint64_t> keys, const SeekOptions& options) {
    size_t size = keys.size() + (options.version_required ? 2 : 0);
    for (const uint64_t key : keys) size += varint_size(key);
    if (!options.version.empty())
        size += 1 + varint_size(options.version.size()) + options.version.size();
    if (!options.dict_name.empty())
        size += 1 + varint_size(options.dict_name.size()) + options.dict_name.size();
    return size;
}

namespace {

uint8_t* write_text(uint8_t* target, uint8_t tag, std::string_view text) {
    if (text.empty()) return target;
    *target++ = tag;
    target = write_varint(target, text.size());
    return std::copy(text.begin(), text.end(), target);
}

}  // namespace

uint8_t* write_seek_request(uint8_t* target, std::span<const uint64_t> keys,
                            const SeekOptions& options) {
    for (const uint64_t key : keys) {
        *target++ = 0x08;
        target = write_varint(target, key);
    }
    if (options.version_required) {
        *target++ = 0x10;
        *target++ = 0x01;
    }
    target = write_text(target, 0x1a, options.version);
    return write_text(target, 0x22, options.dict_name);
}

namespace {

constexpr const char* kResponseName = "DictResponse";

class ResponseDecoder {
  public:
    ResponseDecoder(Bytes body, std::span<const uint32_t> positions, const SeekTarget& target)
        : body_(body), positions_(positions), target_(target), head_(target.dim * sizeof(float)) {}

    SeekVersion decode() {
        const uint8_t* at = body_.data();
        const uint8_t* end = at + body_.size();
        while (true) {
            at = copy_found(at, end);
            if (at == end) break;
            ProtobufReader reader({at, end}, kResponseName, body_.data());
            reader.next();
            parse_field(reader);
            at = body_.data() + reader.offset();
        }
        if (decoded_ != positions_.size())
            throw Error(ErrorKind::kWire, std::string(kResponseName) + " has " +
                                              std::to_string(decoded_) + " values for " +
                                              std::to_string(positions_.size()) + " keys");
        return version_;
    }

  private:
    // Values of the expected width, as a server writes them, without the general walk.
    const uint8_t* copy_found(const uint8_t* at, const uint8_t* end) {
        const size_t row_bytes = target_.dim * sizeof(float);
        while (static_cast<size_t>(end - at) >= head_.size + row_bytes &&
               decoded_ < positions_.size() && std::memcmp(at, head_.bytes, head_.size) == 0) {
            const uint32_t position = positions_[decoded_++];
            std::memcpy(target_.rows + position * target_.dim, at + head_.size, row_bytes);
            target_.status[position] = kStatusFound;
            at += head_.size + row_bytes;
        }
        return at;
    }
    void parse_field(ProtobufReader& reader) {
        if (reader.is(1, WireType::kBytes)) {
            place(parse_dict_value(reader.nested("DictResponse: value")), reader);
        } else if (reader.is(2, WireType::kBytes)) {
            version_ = {true, as_text(reader.bytes())};
        } else {
            reader.skip();
        }
    }
    void place(const DictValue& value, const ProtobufReader& reader) {
        if (decoded_ == positions_.size())
            reader.fail("has more values than the " + std::to_string(positions_.size()) +
                        " keys asked for");
        const uint32_t position = positions_[decoded_++];
        float* row = target_.rows + position * target_.dim;
        if (value.status == 0 && value.value.size() == target_.dim * sizeof(float)) {
            std::memcpy(row, value.value.data(), value.value.size());
            target_.status[position] = kStatusFound;
            return;
        }
        std::fill_n(row, target_.dim, 0.0F);
        target_.status[position] = value.status == 0 ? kStatusWrongWidth : kStatusMissing;
    }

    Bytes body_;
    std::span<const uint32_t> positions_;
    SeekTarget target_;
    FoundHead head_;
    SeekVersion version_;
    size_t decoded_ = 0;
};

}  // namespace

SeekVersion decode_seek_response(Bytes body, std::span<const uint32_t> positions,
                                 const SeekTarget& target) {
    return ResponseDecoder(body, positions, target).decode();
}

size_t first_value_size(Bytes body) {
    ProtobufReader reader(body, kResponseName);
    while (reader.next()) {
        if (!reader.is(1, WireType::kBytes)) {
            reader.skip();
            continue;
        }
        const DictValue value = parse_dict_value(reader.nested("DictResponse: value"));
        if (value.status == 0) return value.value.size();
    }
    return 0;
}

}  // namespace cube
