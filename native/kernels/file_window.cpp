#include "kernels/file_window.hpp"

#include <algorithm>
#include <cstring>

namespace cube {

namespace {
constexpr size_t kBlockBytes = size_t{1} << 20;
static_assert(kBlockBytes >= FileWindow::kNeedBytesMax);
}  // namespace

FileWindow::FileWindow(const std::string& path)
    : file_(File::open_to_read(path)),
      file_bytes_(file_.size()),
      block_(new uint8_t[kBlockBytes]),
      at_(block_.get()) {}

bool FileWindow::fill(size_t size) {
    if (size > remaining()) return false;
    std::memmove(block_.get(), at_, available_);
    at_ = block_.get();
    const uint64_t unread = remaining() - available_;
    const size_t wanted = static_cast<size_t>(std::min<uint64_t>(unread, kBlockBytes - available_));
    available_ += read_ahead(offset_ + available_, block_.get() + available_, wanted);
    return size <= available_;
}

size_t FileWindow::read_ahead(uint64_t offset, uint8_t* target, size_t size) const {
    return file_bytes_ > kCachedBytesMax ? file_.read_once(offset, target, size)
                                         : file_.read_at(offset, target, size);
}

bool FileWindow::take(uint8_t* target, size_t size) {
    if (size == 0) return true;  // `target` may be null then
    if (size > remaining()) return false;
    const size_t at_hand = std::min(size, available_);
    std::memcpy(target, at_, at_hand);
    const size_t rest = size - at_hand;
    if (read_ahead(offset_ + at_hand, target + at_hand, rest) != rest) return false;
    advance(at_hand);
    offset_ += rest;
    return true;
}

}  // namespace cube
