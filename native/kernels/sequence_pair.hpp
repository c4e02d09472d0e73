#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace cube {

// Width of a value, and so of a row: what a table takes.
inline constexpr size_t kSequenceValueBytesMax = 65535;

inline constexpr char kBytesWritable[] = "org.apache.hadoop.io.BytesWritable";

// How keys and values stand inside a record.
//   paddle: the key's 8 bytes little-endian, the value; whatever the class names say.
//   hadoop: as the classes write themselves. A BytesWritable key holds 8 bytes little-endian, as
//           Paddle's tools fill it; the numbers of other classes are big-endian.
enum class SequenceDialect { kPaddle, kHadoop };

// What is wrong with a record; whoever knows file and offset adds them.
class RecordFault : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct SequenceRecord {
    std::span<const uint8_t> key;
    std::span<const uint8_t> value;
};

// "" for classes that are read, else what is supported.
std::string class_fault(const std::string& key_class, const std::string& value_class);

// Whether a record may have an empty value, which deletes its key.
enum class EmptyValues { kRefused, kTaken };

// Takes keys and values out of the records of one file. The first record tells the dialect and the
// width, which all others must have. Calls throw RecordFault.
class PairDecoder {
  public:
    PairDecoder() = default;
    PairDecoder(const std::string& key_class, const std::string& value_class,
                const SequenceRecord& first, EmptyValues empty_values);

    SequenceDialect dialect() const {
        return key_form_ == KeyForm::kRaw ? SequenceDialect::kPaddle : SequenceDialect::kHadoop;
    }
    size_t width() const { return width_; }
    // Writes `width()` bytes to `value`: those of a BytesWritable, or float32 little-endian.
    void decode(const SequenceRecord& record, uint64_t& key, uint8_t* value) const;
    // The same for a value of any width up to kSequenceValueBytesMax, added to `values`.
    void decode_any(const SequenceRecord& record, uint64_t& key,
                    std::vector<uint8_t>& values) const;

  private:
    enum class KeyForm { kRaw, kBytes, kLong, kInt, kVLong, kText };
    enum class ValueForm { kRaw, kBytes, kText, kFloats };

    uint64_t key_of(std::span<const uint8_t> field) const;
    size_t width_of(std::span<const uint8_t> field) const;
    void write_value(std::span<const uint8_t> field, size_t width, uint8_t* target) const;

    KeyForm key_form_ = KeyForm::kRaw;
    ValueForm value_form_ = ValueForm::kRaw;
    EmptyValues empty_values_ = EmptyValues::kRefused;
    size_t width_ = 0;
};

}  // namespace cube
