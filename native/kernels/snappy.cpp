#include "kernels/snappy.hpp"

#include <cstring>
#include <limits>
#include <string>

#include "kernels/varint.hpp"

namespace cube {

namespace {

constexpr unsigned kLongLiteral = 60;

class SnappyReader {
  public:
    explicit SnappyReader(Bytes compressed)
        : begin_(compressed.data()), at_(begin_), end_(begin_ + compressed.size()) {}

    size_t size() {
        uint64_t size;
        const uint8_t* after = read_varint(at_, end_, size);
        if (after == nullptr || size > std::numeric_limits<uint32_t>::max())
            fail("does not begin with its length");
        at_ = after;
        return static_cast<size_t>(size);
    }

    void expand(uint8_t* target, size_t size) {
        target_ = target;
        left_ = size;
        while (at_ != end_) {
            const uint8_t tag = *at_++;
            switch (tag & 3) {
                case 0:
                    literal(tag >> 2);
                    break;
                case 1:
                    copy(4 + (tag >> 2 & 7), static_cast<size_t>(tag >> 5) << 8 | number(1));
                    break;
                case 2:
                    copy(1 + (tag >> 2), number(2));
                    break;
                default:
                    copy(1 + (tag >> 2), number(4));
            }
            done_ = size - left_;
        }
        if (left_ != 0) fail("ends before the length it begins with");
    }

  private:
    [[noreturn]] void fail(const std::string& problem) const {
        throw Error(ErrorKind::kWire,
                    "snappy data " + problem + " (offset " + std::to_string(at_ - begin_) + ")");
    }
    size_t number(size_t bytes) {
        if (static_cast<size_t>(end_ - at_) < bytes) fail("is cut off");
        size_t value = 0;
        for (size_t i = 0; i < bytes; ++i) value |= size_t{at_[i]} << 8 * i;
        at_ += bytes;
        return value;
    }
    void expect_room(size_t size) const {
        if (size > left_) fail("is longer than the length it begins with");
    }
    void literal(size_t size) {
        size = size < kLongLiteral ? size + 1 : number(size - kLongLiteral + 1) + 1;
        expect_room(size);
        if (size > static_cast<size_t>(end_ - at_)) fail("is cut off inside a literal");
        std::memcpy(target_, at_, size);
        at_ += size;
        advance(size);
    }
    void copy(size_t size, size_t distance) {
        expect_room(size);
        if (distance == 0 || distance > done_) fail("copies from before its beginning");
        // Source and target may overlap: what was just written is then copied on.
        const uint8_t* const source = target_ - distance;
        for (size_t i = 0; i < size; ++i) target_[i] = source[i];
        advance(size);
    }
    void advance(size_t size) {
        target_ += size;
        left_ -= size;
    }

    const uint8_t* begin_;
    const uint8_t* at_;
    const uint8_t* end_;
    uint8_t* target_ = nullptr;
    size_t left_ = 0;
    size_t done_ = 0;
};

}  // namespace

size_t snappy_size(Bytes compressed, size_t bytes_max) {
    const size_t size = SnappyReader(compressed).size();
    if (size > bytes_max)
        throw Error(ErrorKind::kLimit, "snappy data of " + std::to_string(size) +
                                           " bytes is over frame_bytes_max " +
                                           std::to_string(bytes_max));
    return size;
}

void snappy_expand(Bytes compressed, uint8_t* target) {
    SnappyReader reader(compressed);
    const size_t size = reader.size();
    reader.expand(target, size);
}

}  // namespace cube
