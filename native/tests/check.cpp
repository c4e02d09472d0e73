#include "tests/check.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace cube::tests {

namespace {

struct Test {
    const char* name;
    void (*body)();
};

std::vector<Test>& all_tests() {
    static std::vector<Test> tests;
    return tests;
}

void damage(std::vector<uint8_t>& bytes, Random& random) {
    if (bytes.empty()) return;
    const size_t at = random.below(bytes.size());
    const auto place = bytes.begin() + static_cast<ptrdiff_t>(at);
    const size_t run = std::min<size_t>(1 + random.below(8), bytes.size() - at);
    switch (random.below(6)) {
        case 0:
            bytes.resize(at);
            return;
        case 1:
            *place ^= static_cast<uint8_t>(1u << random.below(8));
            return;
        case 2:
            *place = static_cast<uint8_t>(random.bits());
            return;
        case 3:
            *place = random.below(2) != 0 ? 0xff : 0x00;
            return;
        case 4:
            bytes.erase(place, place + static_cast<ptrdiff_t>(run));
            return;
        default: {
            const std::vector<uint8_t> piece(place, place + static_cast<ptrdiff_t>(run));
            bytes.insert(place, piece.begin(), piece.end());
        }
    }
}

}  // namespace

bool register_test(const char* name, void (*body)()) {
    all_tests().push_back({name, body});
    return true;
}

std::vector<uint8_t> Random::bytes(size_t size) {
    std::vector<uint8_t> made(size);
    for (uint8_t& byte : made) byte = static_cast<uint8_t>(bits());
    return made;
}

uint64_t Random::key() { return bits() >> below(64); }

void expect_tamed(std::span<const std::vector<uint8_t>> valid, ErrorKind kind, uint64_t seed,
                  const std::function<void(std::span<const uint8_t>)>& parse) {
    const auto attempt = [&](const std::vector<uint8_t>& bytes) {
        try {
            parse(ExactBytes(bytes).span());
        } catch (const Error& error) {
            CHECK(error.kind() == kind || error.kind() == ErrorKind::kLimit);
        }
    };
    Random random(seed);
    for (int round = 0; round < 20000; ++round) attempt(random.bytes(random.below(80)));
    for (const std::vector<uint8_t>& good : valid) {
        for (size_t size = 0; size <= std::min<size_t>(good.size(), 4096); ++size)
            attempt({good.begin(), good.begin() + static_cast<ptrdiff_t>(size)});
        for (int round = 0; round < 10000; ++round) {
            std::vector<uint8_t> bytes = good;
            for (uint64_t times = 1 + random.below(4); times > 0; --times) damage(bytes, random);
            attempt(bytes);
        }
    }
}

Error error_of(const std::function<void()>& body) {
    try {
        body();
    } catch (const Error& error) {
        return error;
    }
    throw Failure("no error was thrown");
}

TemporaryDirectory::TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "cube-kernels-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw Failure("no temporary directory");
    path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::vector<uint8_t> read_whole(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_whole(const std::string& path, std::span<const uint8_t> bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    CHECK(file.good());
}

}  // namespace cube::tests

int main() {
    int failed = 0;
    for (const auto& test : cube::tests::all_tests()) {
        try {
            test.body();
            std::printf("ok      %s\n", test.name);
        } catch (const std::exception& error) {
            std::printf("FAILED  %s: %s\n", test.name, error.what());
            ++failed;
        }
        std::fflush(stdout);
    }
    std::printf("%zu tests, %d failed\n", cube::tests::all_tests().size(), failed);
    return failed == 0 ? 0 : 1;
}
