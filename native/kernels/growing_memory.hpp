#pragma once

#include <cstddef>
#include <cstdint>

namespace cube {

// Bytes that come bit by bit and may become very many: where it grows, large memory is moved by
// its page tables instead of being copied, and stands in huge pages where the kernel gives them.
class GrowingMemory {
  public:
    GrowingMemory() = default;
    GrowingMemory(GrowingMemory&& other) noexcept;
    GrowingMemory& operator=(GrowingMemory&& other) noexcept;
    ~GrowingMemory();

    uint8_t* data() const { return data_; }
    size_t size() const { return size_; }
    // Makes room for `size` more bytes and counts them in; returns where they begin. Throws
    // std::bad_alloc, and is as it was then.
    uint8_t* extend(size_t size);
    // Forgets the bytes and gives their memory back.
    void clear();

  private:
    void grow(size_t capacity);
    void grow_mapped(size_t capacity);
    bool is_mapped() const;

    uint8_t* data_ = nullptr;
    size_t size_ = 0;
    size_t capacity_ = 0;
};

inline uint8_t* GrowingMemory::extend(size_t size) {
    if (size > capacity_ - size_) grow(size_ + size);
    uint8_t* const begin = data_ + size_;
    size_ += size;
    return begin;
}

}  // namespace cube
