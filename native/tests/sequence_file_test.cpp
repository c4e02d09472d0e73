#include "kernels/sequence_file.hpp"

#include <algorithm>
#include <filesystem>

#include "tests/check.hpp"

namespace cube::tests {

namespace {

struct Pairs {
    size_t width;
    std::vector<uint64_t> keys;
    std::vector<uint8_t> values;
};

Pairs random_pairs(size_t count, size_t width, uint64_t seed) {
    Random random(seed);
    Pairs pairs{width, std::vector<uint64_t>(count), random.bytes(count * width)};
    for (uint64_t& key : pairs.keys) key = random.key();
    return pairs;
}

void write_pairs(const std::string& path, const Pairs& pairs, SequenceDialect dialect) {
    SequenceFileWriter writer(path, dialect);
    writer.append(pairs.keys.size(), pairs.width, pairs.keys.data(), pairs.values.data());
    writer.close();
}

Pairs read_pairs(const std::string& path, size_t records_max) {
    SequenceFileReader reader(path);
    Pairs pairs{reader.width(), {}, {}};
    for (;;) {
        const SequenceBatch batch = reader.read(records_max);
        if (batch.count == 0) return pairs;
        CHECK(batch.count <= records_max && batch.width == pairs.width);
        pairs.keys.insert(pairs.keys.end(), batch.keys.get(), batch.keys.get() + batch.count);
        pairs.values.insert(pairs.values.end(), batch.values.get(),
                            batch.values.get() + batch.count * batch.width);
    }
}

}  // namespace

TEST(sequence_files_come_back) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("pairs");
    for (const SequenceDialect dialect : {SequenceDialect::kPaddle, SequenceDialect::kHadoop}) {
        for (const size_t width : {size_t{1}, size_t{7}, size_t{40}, size_t{65535}}) {
            // Some sync markers and some blocks of the window, whatever the width.
            const Pairs pairs = random_pairs(3000000 / (width + 20), width, width);
            write_pairs(path, pairs, dialect);
            const Pairs back = read_pairs(path, 1 + pairs.keys.size() / 3);
            CHECK(back.keys == pairs.keys && back.values == pairs.values);
            CHECK(SequenceFileReader(path).dialect() == dialect);
        }
    }
}

TEST(sequence_files_of_hostile_bytes_are_refused) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("pairs");
    std::vector<std::vector<uint8_t>> valid;
    for (const SequenceDialect dialect : {SequenceDialect::kPaddle, SequenceDialect::kHadoop}) {
        write_pairs(path, random_pairs(12, 8, 80), dialect);
        valid.push_back(read_whole(path));
    }
    expect_tamed(valid, ErrorKind::kSequenceFile, 81, [&](std::span<const uint8_t> bytes) {
        write_whole(path, bytes);
        const Pairs back = read_pairs(path, 1000);
        CHECK(back.keys.size() * 8 <= bytes.size());
    });
}

TEST(a_sequence_file_that_shrinks_while_it_is_read_is_an_error) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("pairs");
    write_pairs(path, random_pairs(100000, 40, 82), SequenceDialect::kHadoop);
    SequenceFileReader reader(path);
    CHECK(reader.read(10).count == 10);
    std::filesystem::resize_file(path, 3000000);
    const Error error = error_of([&] { reader.read(100000); });
    CHECK(error.kind() == ErrorKind::kSequenceFile);
}

TEST(no_bytes_are_taken_to_nowhere) {
    const TemporaryDirectory directory;
    write_whole(directory.file("some"), std::vector<uint8_t>{1, 2, 3});
    FileWindow window(directory.file("some"));
    CHECK(window.take(nullptr, 0));  // as for an empty part of a compressed block
    uint8_t taken[3];
    CHECK(window.take(taken, 3) && taken[2] == 3 && window.remaining() == 0);
    CHECK(window.take(nullptr, 0) && !window.take(taken, 1));
}

TEST(a_discarded_sequence_file_leaves_nothing) {
    const TemporaryDirectory directory;
    const std::string path = directory.file("pairs");
    const Pairs pairs = random_pairs(10, 4, 83);
    SequenceFileWriter writer(path, SequenceDialect::kPaddle);
    writer.append(10, 4, pairs.keys.data(), pairs.values.data());
    writer.discard();
    CHECK(std::filesystem::is_empty(std::filesystem::path(path).parent_path()));
}

}  // namespace cube::tests
