#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/file.hpp"

namespace cube {

// A read-only region of memory: anonymous and filled once, shared with other processes and filled
// once, or a mapped file.
class Memory {
  public:
    // Writable until it is handed on; in huge pages where the kernel gives them. Throws OsError
    // with `path` when there is not that much.
    static Memory anonymous(size_t size, const std::string& path);
    static Memory mapped(const File& file, size_t size);
    // As `anonymous`, but other processes can map it by its descriptor. Call `seal` when it is
    // filled.
    static Memory shared(size_t size, const std::string& path);
    // Maps what another process has made with `shared` or `mapped`; keeps a descriptor of its own.
    static Memory attached(int descriptor, size_t size, const std::string& path);

    // Puts shared memory into huge pages, where the kernel can, and lets nobody write or cut it
    // any more.
    void seal();
    Memory() = default;
    Memory(Memory&& other) noexcept;
    Memory& operator=(Memory&& other) noexcept;
    ~Memory();

    uint8_t* data() const { return data_; }
    size_t size() const { return size_; }
    // Of the shared memory or mapped file; -1 when it is anonymous.
    int descriptor() const { return descriptor_; }

  private:
    Memory(uint8_t* data, size_t size, void* mapping, size_t mapping_bytes, int descriptor = -1)
        : data_(data),
          size_(size),
          mapping_(mapping),
          mapping_bytes_(mapping_bytes),
          descriptor_(descriptor) {}
    static Memory map_shared(int descriptor, size_t size, int protection, const std::string& path);

    uint8_t* data_ = nullptr;
    size_t size_ = 0;
    void* mapping_ = nullptr;
    size_t mapping_bytes_ = 0;
    int descriptor_ = -1;
};

}  // namespace cube
