#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cube {

// An open file descriptor; closed with the object. Calls throw OsError with the path.
class File {
  public:
    static File open_to_read(const std::string& path);
    // Fails when `path` exists.
    static File create(const std::string& path);
    // Empties the file when it exists.
    static File create_or_empty(const std::string& path);
    File(File&& other) noexcept;
    File& operator=(File&&) = delete;
    ~File();

    uint64_t size() const { return size_of(descriptor_, path_); }
    static uint64_t size_of(int descriptor, const std::string& path);
    int descriptor() const { return descriptor_; }
    const std::string& path() const { return path_; }
    // Reads up to `size` bytes at `offset`; fewer only at the end of the file.
    size_t read_at(uint64_t offset, void* target, size_t size) const;
    // Writes all of them at the file's position.
    void write(const void* source, size_t size);
    // Flushes to the disk and closes.
    void sync_and_close();

  private:
    File(int descriptor, const std::string& path) : descriptor_(descriptor), path_(path) {}
    int descriptor_;
    std::string path_;
};

// A file written under a temporary name in the directory of `path`. `commit` makes it durable and
// renames it; without it nothing is left.
class ReplacementFile {
  public:
    explicit ReplacementFile(const std::string& path);
    ReplacementFile(const ReplacementFile&) = delete;
    ReplacementFile& operator=(const ReplacementFile&) = delete;
    ~ReplacementFile();

    void write(const void* source, size_t size) { file_.write(source, size); }
    void commit();

  private:
    std::string path_;
    std::string temporary_path_;
    File file_;
    bool committed_ = false;
};

// Writes a file under the name `temporary`, makes it durable and renames it to `path`, in whose
// directory it is.
void replace_file(const std::string& path, const std::string& temporary, std::string_view content);

uint32_t crc32c_file(const std::string& path);

}  // namespace cube
