#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/file.hpp"

namespace cube {

// A read-only region of memory: anonymous and filled once, or a mapped file.
class Memory {
  public:
    // Writable until it is handed on; in huge pages where the kernel gives them. Throws OsError
    // with `path` when there is not that much.
    static Memory anonymous(size_t size, const std::string& path);
    static Memory mapped(const File& file, size_t size);
    Memory() = default;
    Memory(Memory&& other) noexcept;
    Memory& operator=(Memory&& other) noexcept;
    ~Memory();

    uint8_t* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    Memory(uint8_t* data, size_t size, void* mapping, size_t mapping_bytes)
        : data_(data), size_(size), mapping_(mapping), mapping_bytes_(mapping_bytes) {}

    uint8_t* data_ = nullptr;
    size_t size_ = 0;
    void* mapping_ = nullptr;
    size_t mapping_bytes_ = 0;
};

}  // namespace cube
