// Writes the inputs that campaigns start from: fuzz_seeds <directory> fills <directory>/<target>/.

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "fuzz/samples.hpp"

namespace {

namespace fs = std::filesystem;

void write(const fs::path& directory, const std::vector<cube::fuzz::ByteVector>& samples) {
    fs::create_directories(directory);
    for (size_t i = 0; i < samples.size(); ++i) {
        std::ofstream file(directory / ("seed_" + std::to_string(i)), std::ios::binary);
        file.write(reinterpret_cast<const char*>(samples[i].data()),
                   static_cast<std::streamsize>(samples[i].size()));
        file.close();
        if (!file) throw std::runtime_error("cannot write to " + directory.string());
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: fuzz_seeds <directory>\n");
        return 2;
    }
    try {
        const fs::path root = argv[1];
        write(root / "frame", cube::fuzz::frame_samples());
        write(root / "seek_request", cube::fuzz::seek_request_samples());
        write(root / "seek_response", cube::fuzz::seek_response_samples());
        write(root / "table", cube::fuzz::table_samples());
        write(root / "sequence_file", cube::fuzz::sequence_file_samples());
        write(root / "ctr_request", cube::fuzz::ctr_request_samples());
        write(root / "snappy", cube::fuzz::snappy_samples());
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "fuzz_seeds: %s\n", error.what());
        return 2;
    }
}
