#include "fuzz/samples.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz/target.hpp"
#include "kernels/ctr_codec.hpp"
#include "kernels/frame.hpp"
#include "kernels/seek_plan.hpp"
#include "kernels/seek_response.hpp"
#include "kernels/sequence_file.hpp"
#include "kernels/sequence_header.hpp"
#include "kernels/sequence_pair.hpp"
#include "kernels/table_writer.hpp"

namespace cube::fuzz {

namespace {

class Directory {
  public:
    Directory() {
        std::string name = std::filesystem::temp_directory_path() / "cube-fuzz-XXXXXX";
        require(::mkdtemp(name.data()) != nullptr, "mkdtemp");
        path_ = name;
    }
    ~Directory() { std::filesystem::remove_all(path_); }
    std::string file(const std::string& name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

ByteVector read_whole(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void append(ByteVector& target, std::string_view source) {
    target.insert(target.end(), source.begin(), source.end());
}

ByteVector request_of(const std::vector<uint64_t>& keys, const SeekOptions& options) {
    ByteVector bytes(seek_request_size(keys, options));
    write_seek_request(bytes.data(), keys, options);
    return bytes;
}

ByteVector framed(std::string_view service, std::string_view method, const ByteVector& payload,
                  std::string_view attachment = {}) {
    ByteVector frame;
    append(frame,
           encode_request_head({service, method, 6, 70, 9}, payload.size(), attachment.size()));
    frame.insert(frame.end(), payload.begin(), payload.end());
    append(frame, attachment);
    return frame;
}

void write_sample_table(const std::string& path, size_t count, size_t value_bytes, ValueKind kind,
                        std::span<const uint64_t> deletions = {}) {
    std::vector<uint64_t> keys(count);
    for (size_t i = 0; i < count; ++i) keys[i] = i * 3;
    ByteVector values(count * value_bytes);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint8_t>(i);
    TableInput input;
    input.keys = keys;
    input.values = values.data();
    input.value_bytes = value_bytes;
    input.value_kind = kind;
    std::vector<int64_t> offsets(kind == ValueKind::kVariable ? count + 1 : 0);
    // Every third value is half as wide.
    for (size_t i = 0; i + 1 < offsets.size(); ++i)
        offsets[i + 1] =
            offsets[i] + static_cast<int64_t>(i % 3 == 0 ? (value_bytes + 1) / 2 : value_bytes);
    input.offsets = offsets;
    input.dict_name = "dict";
    input.version = "7_9";
    input.deletions = deletions;
    if (!deletions.empty()) input.base_version = "7_7";
    write_table(path, input);
}

}  // namespace

ByteVector table_bytes(size_t count, size_t value_bytes, ValueKind kind) {
    const Directory directory;
    write_sample_table(directory.file("table"), count, value_bytes, kind);
    return read_whole(directory.file("table"));
}

ByteVector delta_bytes(size_t count, size_t value_bytes, ValueKind kind) {
    const Directory directory;
    write_sample_table(directory.file("delta"), count, value_bytes, kind, {{3, 9, 33, 1}});
    return read_whole(directory.file("delta"));
}

std::shared_ptr<const Table> opened(const ByteVector& bytes) {
    MemoryFile file;
    file.replace(bytes);
    return Table::open(file.path(), TablePlace::kPrivate);
}

std::shared_ptr<const Table> sample_table() {
    const Directory directory;
    write_sample_table(directory.file("table"), 1000, 12, ValueKind::kBytes);
    return Table::open(directory.file("table"), TablePlace::kPrivate);
}

std::vector<ByteVector> seek_request_samples() {
    // 0x0a is a packed list of keys, 0x10 version_required, 0x1a a pinned version.
    return {request_of({1, 3, 300, uint64_t{1} << 45, ~uint64_t{0}}, {"7_9", true}),
            request_of({0, 3, 6, 9}, {}),
            request_of({}, {"8_8", false}),
            {0x0a, 0x03, 0x02, 0x80, 0x01, 0x08, 0x03, 0x10, 0x01},
            {}};
}

std::vector<ByteVector> frame_samples() {
    std::vector<ByteVector> samples;
    ByteVector pipelined;
    for (const ByteVector& request : seek_request_samples()) {
        samples.push_back(framed("rec.mcube.DictService", "seek", request));
        pipelined.insert(pipelined.end(), samples.back().begin(), samples.back().end());
    }
    samples.push_back(pipelined);
    samples.push_back(framed("ControlService", "cmd", {}, R"({"cmd":"status"})"));
    append(samples.emplace_back(), encode_error_frame(7, 1003, "not this way"));
    return samples;
}

std::vector<ByteVector> seek_response_samples() {
    const auto table = sample_table();
    std::vector<ByteVector> samples;
    for (const std::string_view version : {"", "7_9"}) {
        const std::vector<uint64_t> keys = {0, 3, 4, 6};
        ByteVector body(seek_response_size_max(keys.size(), table->value_bytes(), version) +
                        kSeekResponseSlack);
        body.resize(write_seek_response(*table, keys, version, body.data()).bytes);
        samples.push_back(body);
    }
    return samples;
}

std::vector<ByteVector> table_samples() {
    return {table_bytes(0, 4, ValueKind::kBytes),    table_bytes(1, 1, ValueKind::kBytes),
            table_bytes(20, 12, ValueKind::kBytes),  table_bytes(300, 8, ValueKind::kBytes),
            table_bytes(20, 6, ValueKind::kFp16),    table_bytes(20, 11, ValueKind::kInt8),
            table_bytes(0, 9, ValueKind::kVariable), table_bytes(20, 9, ValueKind::kVariable),
            delta_bytes(0, 12, ValueKind::kBytes),   delta_bytes(20, 12, ValueKind::kBytes),
            delta_bytes(20, 11, ValueKind::kInt8),   delta_bytes(20, 9, ValueKind::kVariable)};
}

namespace {

// The header of a compressed file, whose codec's name is short.
ByteVector compressed_header(const SequenceHeader& header) {
    constexpr size_t kAfterFlags = 4 + kSyncMarkerBytes;  // no metadata, then the marker
    ByteVector bytes = encode_sequence_header(header);
    bytes[bytes.size() - kAfterFlags - 2] = 1;
    bytes[bytes.size() - kAfterFlags - 1] = header.compression == SequenceCompression::kBlock;
    ByteVector codec = {static_cast<uint8_t>(header.codec.size())};
    append(codec, header.codec);
    bytes.insert(bytes.end() - kAfterFlags, codec.begin(), codec.end());
    return bytes;
}

// Three pairs as Spark writes them: LongWritable keys, BytesWritable values of 4 bytes.
ByteVector compressed_sequence_file(SequenceCompression compression) {
    SequenceHeader header{
        "org.apache.hadoop.io.LongWritable", kBytesWritable, {}, compression, "as it is"};
    header.sync_marker.fill(9);
    ByteVector bytes = compressed_header(header);
    const ByteVector key = {0, 0, 0, 0, 0, 0, 0, 5};
    const ByteVector value = {0, 0, 0, 4, 1, 2, 3, 4};
    if (compression == SequenceCompression::kRecord) {
        for (int i = 0; i < 3; ++i) {
            const ByteVector lengths = {0, 0, 0, 16, 0, 0, 0, 8};
            for (const ByteVector& part : {lengths, key, value})
                bytes.insert(bytes.end(), part.begin(), part.end());
        }
        return bytes;
    }
    const ByteVector escape(4, 0xff);
    bytes.insert(bytes.end(), escape.begin(), escape.end());
    bytes.insert(bytes.end(), header.sync_marker.begin(), header.sync_marker.end());
    bytes.push_back(3);
    for (const ByteVector& field : {key, value}) {
        bytes.insert(bytes.end(), {3, 8, 8, 8, 24});  // the lengths, then what they cut up
        for (int i = 0; i < 3; ++i) bytes.insert(bytes.end(), field.begin(), field.end());
    }
    return bytes;
}

}  // namespace

std::vector<ByteVector> sequence_file_samples() {
    const Directory directory;
    std::vector<ByteVector> samples = {compressed_sequence_file(SequenceCompression::kRecord),
                                       compressed_sequence_file(SequenceCompression::kBlock)};
    for (const SequenceDialect dialect : {SequenceDialect::kPaddle, SequenceDialect::kHadoop})
        for (const size_t count : {size_t{0}, size_t{5}, size_t{200}}) {
            const std::string path = directory.file("pairs" + std::to_string(samples.size()));
            SequenceFileWriter writer(path, dialect);
            const std::vector<uint64_t> keys(count, 77);
            const ByteVector values(count * 8, 5);
            if (count != 0) writer.append(count, 8, keys.data(), values.data());
            writer.close();
            samples.push_back(read_whole(path));
        }
    return samples;
}

std::vector<ByteVector> ctr_request_samples() {
    const CtrColumns columns{3, 2};
    const std::vector<int64_t> sparse_ids = {1, -2, 300, 4, 5, int64_t{1} << 60};
    const std::vector<float> dense_ids = {0.5F, 1, 2, 3};
    ByteVector two(ctr_request_size(2, columns, sparse_ids.data()));
    encode_ctr_request(2, columns, sparse_ids.data(), dense_ids.data(), two.data());
    ByteVector one(ctr_request_size(1, columns, sparse_ids.data()));
    encode_ctr_request(1, columns, sparse_ids.data(), dense_ids.data(), one.data());
    return {one, two, {}};
}

std::vector<ByteVector> snappy_samples() {
    // The length, then a literal of 4 bytes, and copies of the three kinds from 4 bytes before.
    return {{0},
            {4, 12, 'c', 'u', 'b', 'e'},
            {20, 12, 'c', 'u', 'b', 'e', 0x01, 4, 0x0e, 4, 0, 0x1f, 4, 0, 0, 0},
            {4, 0xf0, 3, 'c', 'u', 'b', 'e'}};
}

}  // namespace cube::fuzz
