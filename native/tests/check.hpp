#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/error.hpp"

namespace cube::tests {

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

bool register_test(const char* name, void (*body)());

// The same numbers on every run.
class Random {
  public:
    explicit Random(uint64_t seed) : engine_(seed) {}
    uint64_t bits() { return engine_(); }
    uint64_t below(uint64_t limit) { return engine_() % limit; }
    std::vector<uint8_t> bytes(size_t size);
    // Ids as they come: small, middling or of 64 bits.
    uint64_t key();

  private:
    std::mt19937_64 engine_;
};

// Bytes in a heap block of exactly their size, so that the sanitizer sees one byte too far.
class ExactBytes {
  public:
    explicit ExactBytes(std::span<const uint8_t> source)
        : size_(source.size()), data_(new uint8_t[source.size()]) {
        std::copy(source.begin(), source.end(), data_.get());
    }
    std::span<const uint8_t> span() const { return {data_.get(), size_}; }

  private:
    size_t size_;
    std::unique_ptr<uint8_t[]> data_;
};

// Calls `parse` with random bytes, and with every kind of damage to the `valid` ones: cut off,
// bits flipped, bytes replaced, pieces repeated or left out. It must return, or throw an Error of
// `kind` or a LimitError; whatever else it does ends the tests.
void expect_tamed(std::span<const std::vector<uint8_t>> valid, ErrorKind kind, uint64_t seed,
                  const std::function<void(std::span<const uint8_t>)>& parse);

// The Error that `body` throws; a Failure when it throws none.
Error error_of(const std::function<void()>& body);

// A directory that is removed with what is in it.
class TemporaryDirectory {
  public:
    TemporaryDirectory();
    ~TemporaryDirectory();
    std::string file(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

std::vector<uint8_t> read_whole(const std::string& path);
void write_whole(const std::string& path, std::span<const uint8_t> bytes);

}  // namespace cube::tests

#define CUBE_TEXT_(x) #x
#define CUBE_TEXT(x) CUBE_TEXT_(x)
#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition))                                                                     \
            throw cube::tests::Failure(__FILE__ ":" CUBE_TEXT(__LINE__) ": CHECK(" #condition \
                                                                        ")");                 \
    } while (false)
#define TEST(name)                                         \
    static void name();                                    \
    [[maybe_unused]] static const bool registered_##name = \
        cube::tests::register_test(#name, name);           \
    static void name()
