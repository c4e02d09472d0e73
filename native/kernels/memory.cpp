#include "kernels/memory.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "kernels/error.hpp"

namespace cube {

namespace {
constexpr size_t kHugePageBytes = size_t{2} << 20;
}

Memory Memory::anonymous(size_t size, const std::string& path) {
    const bool huge = size >= 2 * kHugePageBytes;
    const size_t mapping_bytes = huge ? size + kHugePageBytes : size;
    void* mapping =
        ::mmap(nullptr, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw OsError(errno, path);
    uint8_t* data = static_cast<uint8_t*>(mapping);
    if (huge) {
        const size_t over = reinterpret_cast<uintptr_t>(mapping) % kHugePageBytes;
        if (over != 0) data += kHugePageBytes - over;
        ::madvise(data, size, MADV_HUGEPAGE);  // a kernel without them says no, which is fine
    }
    return {data, size, mapping, mapping_bytes};
}

Memory Memory::mapped(const File& file, size_t size) {
    void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor(), 0);
    if (mapping == MAP_FAILED) throw OsError(errno, file.path());
    return {static_cast<uint8_t*>(mapping), size, mapping, size};
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapping_, other.mapping_);
    std::swap(mapping_bytes_, other.mapping_bytes_);
    return *this;
}

Memory::~Memory() {
    if (mapping_ != nullptr) ::munmap(mapping_, mapping_bytes_);
}

}  // namespace cube
