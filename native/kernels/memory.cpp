#include "kernels/memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "kernels/error.hpp"
#include "kernels/threads.hpp"

namespace cube {

namespace {
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr uint64_t kHugePagesPerTurn = 16;

#ifdef MADV_COLLAPSE
constexpr int kCollapse = MADV_COLLAPSE;
#else
constexpr int kCollapse = 25;  // Linux 6.1
#endif

// Room for `size` bytes that begin at a huge page, when they fill any.
struct Room {
    uint8_t* data;
    void* mapping;
    size_t mapping_bytes;

    Room(size_t size, int protection, const std::string& path) {
        const bool huge = size >= 2 * kHugePageBytes;
        mapping_bytes = huge ? size + kHugePageBytes : size;
        mapping = ::mmap(nullptr, mapping_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapping == MAP_FAILED) throw OsError(errno, path);
        data = static_cast<uint8_t*>(mapping);
        const size_t over = reinterpret_cast<uintptr_t>(mapping) % kHugePageBytes;
        if (huge && over != 0) data += kHugePageBytes - over;
        // A kernel without huge pages says no, which is fine.
        if (huge) ::madvise(data, size, MADV_HUGEPAGE);
    }
};

int duplicated(int descriptor, const std::string& path) {
    const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) throw OsError(errno, path);
    return copy;
}

}  // namespace

Memory Memory::anonymous(size_t size, const std::string& path) {
    const Room room(size, PROT_READ | PROT_WRITE, path);
    return {room.data, size, room.mapping, room.mapping_bytes};
}

Memory Memory::mapped(const File& file, size_t size) {
    const int descriptor = duplicated(file.descriptor(), file.path());
    void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (mapping == MAP_FAILED) {
        const int failed = errno;
        ::close(descriptor);
        throw OsError(failed, file.path());
    }
    return {static_cast<uint8_t*>(mapping), size, mapping, size, descriptor};
}

Memory Memory::shared(size_t size, const std::string& path) {
    const int descriptor = ::memfd_create("cube-table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor < 0) throw OsError(errno, path);
    if (::ftruncate(descriptor, static_cast<off_t>(size)) != 0) {
        const int failed = errno;
        ::close(descriptor);
        throw OsError(failed, path);
    }
    return map_shared(descriptor, size, PROT_READ | PROT_WRITE, path);
}

Memory Memory::attached(int descriptor, size_t size, const std::string& path) {
    return map_shared(duplicated(descriptor, path), size, PROT_READ, path);
}

// Takes the descriptor over.
Memory Memory::map_shared(int descriptor, size_t size, int protection, const std::string& path) {
    const Room room(size, PROT_NONE, path);
    Memory memory(room.data, size, room.mapping, room.mapping_bytes, descriptor);
    if (::mmap(room.data, size, protection, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED)
        throw OsError(errno, path);
    if (size >= 2 * kHugePageBytes) ::madvise(room.data, size, MADV_HUGEPAGE);
    return memory;
}

void Memory::seal() {
    if (descriptor_ < 0 || mapping_ == nullptr) return;
    // By itself the kernel gives shared memory huge pages only where its administrator said so.
    // Page by page, since it gives up where one fails.
    in_threads(size_ / kHugePageBytes, kHugePagesPerTurn, [&](uint64_t first, uint64_t end) {
        for (uint64_t page = first; page < end; ++page)
            ::madvise(data_ + page * kHugePageBytes, kHugePageBytes, kCollapse);
    });
    ::mprotect(data_, size_, PROT_READ);
    ::fcntl(descriptor_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapping_, other.mapping_);
    std::swap(mapping_bytes_, other.mapping_bytes_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

Memory::~Memory() {
    if (mapping_ != nullptr) ::munmap(mapping_, mapping_bytes_);
    if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace cube
