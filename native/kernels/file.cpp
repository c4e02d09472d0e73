#include "kernels/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <utility>
#include <vector>

#include "kernels/crc32c.hpp"
#include "kernels/error.hpp"

namespace cube {

namespace {

constexpr size_t kReadBlockBytes = size_t{1} << 20;
constexpr size_t kReadOnceBytes = size_t{8} << 20;

std::string directory_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

std::string temporary_name(const std::string& path) {
    static std::atomic<uint64_t> serial{0};
    return path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(serial++);
}

int opened_to_write(const std::string& path, int how) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0666);
    if (descriptor < 0) throw OsError(errno, path);
    return descriptor;
}

void sync_directory(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) throw OsError(errno, path);
    const int failed = ::fsync(descriptor) == 0 ? 0 : errno;
    ::close(descriptor);
    if (failed != 0) throw OsError(failed, path);
}

}  // namespace

File File::open_to_read(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) throw OsError(errno, path);
    return {descriptor, path};
}

File File::create(const std::string& path) { return {opened_to_write(path, O_EXCL), path}; }

File File::create_or_empty(const std::string& path) {
    return {opened_to_write(path, O_TRUNC), path};
}

File File::open_to_append(const std::string& path) {
    return {opened_to_write(path, O_APPEND), path};
}

File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

File::~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

uint64_t File::size_of(int descriptor, const std::string& path) {
    struct stat status;
    if (::fstat(descriptor, &status) != 0) throw OsError(errno, path);
    if (S_ISDIR(status.st_mode)) throw OsError(EISDIR, path);
    return static_cast<uint64_t>(status.st_size);
}

size_t File::read_at(uint64_t offset, void* target, size_t size) const {
    size_t done = 0;
    while (done < size) {
        const ssize_t count = ::pread(descriptor_, static_cast<uint8_t*>(target) + done,
                                      size - done, static_cast<off_t>(offset + done));
        if (count == 0) break;
        if (count > 0) {
            done += static_cast<size_t>(count);
        } else if (errno != EINTR) {
            throw OsError(errno, path_);
        }
    }
    return done;
}

size_t File::read_once(uint64_t offset, void* target, size_t size) const {
    size_t done = 0;
    while (done < size) {
        const size_t wanted = std::min(size - done, kReadOnceBytes);
        const size_t count = read_at(offset + done, static_cast<uint8_t*>(target) + done, wanted);
        ::posix_fadvise(descriptor_, static_cast<off_t>(offset + done), static_cast<off_t>(count),
                        POSIX_FADV_DONTNEED);
        done += count;
        if (count < wanted) break;
    }
    return done;
}

void File::write(const void* source, size_t size) {
    const uint8_t* at = static_cast<const uint8_t*>(source);
    while (size > 0) {
        const ssize_t count = ::write(descriptor_, at, size);
        if (count >= 0) {
            at += count;
            size -= static_cast<size_t>(count);
        } else if (errno != EINTR) {
            throw OsError(errno, path_);
        }
    }
}

void File::sync_and_close() {
    if (::fsync(descriptor_) != 0) throw OsError(errno, path_);
    if (::close(std::exchange(descriptor_, -1)) != 0) throw OsError(errno, path_);
}

void WriteBehind::wrote(const File& file, size_t size) {
    end_ += size;
    if (end_ - started_ < kStepBytes) return;
    const int descriptor = file.descriptor();
    // Advice, which not every filesystem takes; what fails on the disk `fsync` will say.
    ::sync_file_range(descriptor, static_cast<off64_t>(started_),
                      static_cast<off64_t>(end_ - started_), SYNC_FILE_RANGE_WRITE);
    // The step before is on the disk by now, or nearly.
    const uint64_t before = std::exchange(started_, end_);
    if (end_ <= cached_bytes_max_ || before <= dropped_) return;
    const off64_t length = static_cast<off64_t>(before - dropped_);
    const int failed = ::sync_file_range(
        descriptor, static_cast<off64_t>(dropped_), length,
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    if (failed != 0 && (errno == EIO || errno == ENOSPC)) throw OsError(errno, file.path());
    ::posix_fadvise(descriptor, static_cast<off_t>(dropped_), static_cast<off_t>(length),
                    POSIX_FADV_DONTNEED);
    dropped_ = before;
}

ReplacementFile::ReplacementFile(const std::string& path)
    : path_(path), temporary_path_(temporary_name(path)), file_(File::create(temporary_path_)) {}

ReplacementFile::~ReplacementFile() {
    if (!committed_) ::unlink(temporary_path_.c_str());
}

void ReplacementFile::commit() {
    file_.sync_and_close();
    if (std::rename(temporary_path_.c_str(), path_.c_str()) != 0) throw OsError(errno, path_);
    committed_ = true;
    sync_directory(directory_of(path_));
}

void replace_file(const std::string& path, const std::string& temporary, std::string_view content) {
    File file = File::create_or_empty(temporary);
    file.write(content.data(), content.size());
    file.sync_and_close();
    if (std::rename(temporary.c_str(), path.c_str()) != 0) throw OsError(errno, path);
    sync_directory(directory_of(path));
}

void remove_file(const std::string& path) {
    if (::unlink(path.c_str()) != 0) throw OsError(errno, path);
}

uint32_t crc32c_file(const std::string& path) {
    const File file = File::open_to_read(path);
    const uint64_t size = file.size();
    std::vector<uint8_t> block(static_cast<size_t>(std::min<uint64_t>(size, kReadBlockBytes)));
    uint32_t crc = 0;
    for (uint64_t offset = 0;;) {
        const size_t count = file.read_at(offset, block.data(), block.size());
        if (count == 0) return crc;
        crc = crc32c(crc, block.data(), count);
        offset += count;
    }
}

}  // namespace cube
