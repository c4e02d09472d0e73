#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace cube {

// Memory of a vector that may become very large: then it stands in huge pages where the kernel
// gives them. Elements without an initial value are left as they are.
template <class T>
struct LargeAllocator {
    using value_type = T;

    LargeAllocator() = default;
    template <class U>
    explicit LargeAllocator(const LargeAllocator<U>&) noexcept {}

    T* allocate(size_t count) {
        const size_t bytes = count * sizeof(T);
        if (bytes < kLargeBytes) return static_cast<T*>(::operator new(bytes));
        void* const data = ::operator new(bytes, kHugePage);
        // A kernel without huge pages says no, which is fine.
        ::madvise(data, bytes, MADV_HUGEPAGE);
        return static_cast<T*>(data);
    }
    void deallocate(T* data, size_t count) noexcept {
        if (count * sizeof(T) < kLargeBytes) return ::operator delete(data);
        ::operator delete(data, kHugePage);
    }
    template <class U>
    void construct(U* element) noexcept {
        ::new (static_cast<void*>(element)) U;
    }
    template <class U, class... Args>
    void construct(U* element, Args&&... args) {
        ::new (static_cast<void*>(element)) U(std::forward<Args>(args)...);
    }
    bool operator==(const LargeAllocator&) const = default;

  private:
    static constexpr std::align_val_t kHugePage{size_t{2} << 20};
    static constexpr size_t kLargeBytes = size_t{16} << 20;
};

template <class T>
using LargeVector = std::vector<T, LargeAllocator<T>>;

}  // namespace cube
