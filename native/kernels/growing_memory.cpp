#include "kernels/growing_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace cube {

namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
// From here on memory is mapped. What is not used of its last huge page is then little of it.
constexpr size_t kMappedBytes = size_t{16} << 20;

size_t in_huge_pages(size_t size) {
    return (size + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
}

// Address space of `size` bytes that begins at a huge page; nothing may be there yet.
uint8_t* reserve(size_t size) {
    void* const mapping = ::mmap(nullptr, size + kHugePageBytes, PROT_NONE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    uint8_t* const begin = static_cast<uint8_t*>(mapping);
    const size_t over = reinterpret_cast<uintptr_t>(begin) % kHugePageBytes;
    const size_t before = over == 0 ? 0 : kHugePageBytes - over;
    if (before > 0) ::munmap(begin, before);
    ::munmap(begin + before + size, kHugePageBytes - before);
    return begin + before;
}

}  // namespace

GrowingMemory::GrowingMemory(GrowingMemory&& other) noexcept { *this = std::move(other); }

GrowingMemory& GrowingMemory::operator=(GrowingMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
}

GrowingMemory::~GrowingMemory() { clear(); }

void GrowingMemory::clear() {
    if (is_mapped()) {
        ::munmap(data_, capacity_);
    } else {
        std::free(data_);
    }
    data_ = nullptr;
    size_ = capacity_ = 0;
}

bool GrowingMemory::is_mapped() const { return capacity_ >= kMappedBytes; }

void GrowingMemory::grow(size_t capacity) {
    // Pages take memory when they are written to, so that twice as much costs nothing.
    capacity = std::max({capacity, 2 * capacity_, size_t{256}});
    if (capacity >= kMappedBytes) return grow_mapped(in_huge_pages(capacity));
    void* const data = std::realloc(data_, capacity);
    if (data == nullptr) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(data);
    capacity_ = capacity;
}

void GrowingMemory::grow_mapped(size_t capacity) {
    uint8_t* const data = reserve(capacity);
    const void* grown =
        is_mapped() ? ::mremap(data_, capacity_, capacity, MREMAP_MAYMOVE | MREMAP_FIXED, data)
                    : ::mmap(data, capacity, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (grown == MAP_FAILED) {
        ::munmap(data, capacity);
        throw std::bad_alloc();
    }
    // A kernel without huge pages says no, which is fine.
    ::madvise(data, capacity, MADV_HUGEPAGE);
    if (!is_mapped()) {
        if (size_ > 0) std::memcpy(data, data_, size_);
        std::free(data_);
    }
    data_ = data;
    capacity_ = capacity;
}

}  // namespace cube
