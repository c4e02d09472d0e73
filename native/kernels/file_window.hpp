#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/file.hpp"

namespace cube {

// A view that slides over a file from its start to its end, read in large blocks. Files are read,
// not mapped: one that another process cuts off meanwhile then ends early and is no SIGBUS.
class FileWindow {
  public:
    explicit FileWindow(const std::string& path);

    const std::string& path() const { return file_.path(); }
    uint64_t file_bytes() const { return file_bytes_; }
    // Where the window stands in the file.
    uint64_t offset() const { return offset_; }
    // Bytes from there to the end.
    uint64_t remaining() const { return file_bytes_ - offset_; }

    // At least `size` bytes from the window's place on, or nullptr when the file ends before.
    // Valid until the next call of `need`; `size` must be at most kNeedBytesMax.
    const uint8_t* need(size_t size) {
        if (size > available_ && !fill(size)) return nullptr;
        return at_;
    }
    // Bytes that `need` has at hand without a read.
    size_t available() const { return available_; }
    // Moves on; `size` must be at most `available()`.
    void advance(size_t size) {
        at_ += size;
        available_ -= size;
        offset_ += size;
    }
    // Copies the next `size` bytes, however many, and moves past them; false, and nothing moved,
    // when the file ends before.
    bool take(uint8_t* target, size_t size);

    static constexpr size_t kNeedBytesMax = size_t{256} << 10;

  private:
    bool fill(size_t size);
    size_t read_ahead(uint64_t offset, uint8_t* target, size_t size) const;

    File file_;
    uint64_t file_bytes_;
    uint64_t offset_ = 0;
    std::unique_ptr<uint8_t[]> block_;
    const uint8_t* at_;
    size_t available_ = 0;
};

}  // namespace cube
