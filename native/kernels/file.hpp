#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cube {

// Files over this are not kept in the kernel's cache when they are written or read from front to
// back: they would push out what others have there, and wait for memory.
inline constexpr uint64_t kCachedBytesMax = uint64_t{1} << 30;

// An open file descriptor; closed with the object. Calls throw OsError with the path.
class File {
  public:
    static File open_to_read(const std::string& path);
    // Fails when `path` exists.
    static File create(const std::string& path);
    // Empties the file when it exists.
    static File create_or_empty(const std::string& path);
    // Makes it when there is none.
    static File open_to_append(const std::string& path);
    File(File&& other) noexcept;
    File& operator=(File&&) = delete;
    ~File();

    uint64_t size() const { return size_of(descriptor_, path_); }
    static uint64_t size_of(int descriptor, const std::string& path);
    int descriptor() const { return descriptor_; }
    const std::string& path() const { return path_; }
    // Reads up to `size` bytes at `offset`; fewer only at the end of the file.
    size_t read_at(uint64_t offset, void* target, size_t size) const;
    // The same, and takes what was read out of the kernel's cache.
    size_t read_once(uint64_t offset, void* target, size_t size) const;
    // Writes all of them at the file's position.
    void write(const void* source, size_t size);
    // Flushes to the disk and closes.
    void sync_and_close();

  private:
    File(int descriptor, const std::string& path) : descriptor_(descriptor), path_(path) {}
    int descriptor_;
    std::string path_;
};

// Has the disk write what has been written to a file while more is made, so that little is left for
// the end. A file over `cached_bytes_max` is taken out of the kernel's cache besides.
class WriteBehind {
  public:
    static constexpr size_t kStepBytes = size_t{16} << 20;

    explicit WriteBehind(uint64_t cached_bytes_max, uint64_t file_bytes = 0)
        : cached_bytes_max_(cached_bytes_max),
          end_(file_bytes),
          started_(file_bytes),
          dropped_(file_bytes) {}
    // After every write of at most kStepBytes.
    void wrote(const File& file, size_t size);

  private:
    uint64_t cached_bytes_max_;
    uint64_t end_;
    uint64_t started_;
    uint64_t dropped_;
};

// A file written under a temporary name in the directory of `path`. `commit` makes it durable and
// renames it; without it nothing is left.
class ReplacementFile {
  public:
    explicit ReplacementFile(const std::string& path);
    ReplacementFile(const ReplacementFile&) = delete;
    ReplacementFile& operator=(const ReplacementFile&) = delete;
    ~ReplacementFile();

    void write(const void* source, size_t size) {
        file_.write(source, size);
        behind_.wrote(file_, size);
    }
    void commit();

  private:
    std::string path_;
    std::string temporary_path_;
    File file_;
    WriteBehind behind_{kCachedBytesMax};
    bool committed_ = false;
};

// Writes a file under the name `temporary`, makes it durable and renames it to `path`, in whose
// directory it is.
void replace_file(const std::string& path, const std::string& temporary, std::string_view content);

void remove_file(const std::string& path);
uint32_t crc32c_file(const std::string& path);

}  // namespace cube
