#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cube {

// Says of a hash, before anything else is read, whether its key can be in a delta: a Bloom filter
// whose bits for one key are all in one word. With 16 bits and 4 of them set a key, some 6 of 1,000
// other keys pass.
class DeltaFilter {
  public:
    explicit DeltaFilter(uint64_t key_count) : words_(key_count / kKeysPerWord + 1, 0) {}

    void add(uint64_t h) { words_[word_of(h)] |= bits_of(h); }
    const uint64_t* place_of(uint64_t h) const { return &words_[word_of(h)]; }
    // `place` is that of the hash.
    static bool passes(const uint64_t* place, uint64_t h) {
        const uint64_t bits = bits_of(h);
        return (*place & bits) == bits;
    }
    size_t bytes() const { return words_.size() * sizeof(uint64_t); }

  private:
    static constexpr uint64_t kKeysPerWord = 4;
    __extension__ using Product = unsigned __int128;

    // The upper bits of a hash choose the word, the lower ones the bits in it.
    size_t word_of(uint64_t h) const {
        return static_cast<size_t>(Product{h} * words_.size() >> 64);
    }
    static uint64_t bits_of(uint64_t h) {
        return uint64_t{1} << (h & 63) | uint64_t{1} << (h >> 6 & 63) |
               uint64_t{1} << (h >> 12 & 63) | uint64_t{1} << (h >> 18 & 63);
    }

    std::vector<uint64_t> words_;
};

}  // namespace cube
