#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <span>
#include <string>

#include "kernels/error.hpp"

namespace cube::fuzz {

// Ends the process, so that libFuzzer keeps the input, when a kernel breaks its word.
inline void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "broken: %s\n", what);
    std::abort();
}

// Runs `body`, which may throw an Error of these kinds and nothing else.
template <class Body>
void refuse_or_pass(std::initializer_list<ErrorKind> kinds, Body&& body) {
    try {
        body();
    } catch (const Error& error) {
        for (const ErrorKind kind : kinds)
            if (error.kind() == kind) return;
        std::fprintf(stderr, "unexpected error: %s\n", error.what());
        std::abort();
    }
}

// A file without a directory, whose content every run replaces.
class MemoryFile {
  public:
    MemoryFile();
    ~MemoryFile();
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    void replace(std::span<const uint8_t> content);
    const std::string& path() const { return path_; }

  private:
    int descriptor_;
    std::string path_;
};

}  // namespace cube::fuzz
