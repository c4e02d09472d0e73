#include <sys/mman.h>
#include <unistd.h>

#include "fuzz/target.hpp"

namespace cube::fuzz {

MemoryFile::MemoryFile()
    : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)),
      path_("/proc/self/fd/" + std::to_string(descriptor_)) {
    require(descriptor_ >= 0, "memfd_create");
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

void MemoryFile::replace(std::span<const uint8_t> content) {
    require(::ftruncate(descriptor_, 0) == 0, "ftruncate");
    for (size_t at = 0; at < content.size();) {
        const ssize_t wrote =
            ::pwrite(descriptor_, content.data() + at, content.size() - at, static_cast<off_t>(at));
        require(wrote > 0, "pwrite");
        at += static_cast<size_t>(wrote);
    }
}

}  // namespace cube::fuzz
