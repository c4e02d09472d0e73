#include "kernels/sequence_pair.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <string_view>
#include <system_error>

#include "kernels/big_endian.hpp"
#include "kernels/hadoop_vint.hpp"

namespace cube {

namespace {

using Bytes = std::span<const uint8_t>;

constexpr std::string_view kPackage = "org.apache.hadoop.io.";
constexpr size_t kRawKeyBytes = 8;
constexpr size_t kLengthBytes = 4;
constexpr size_t kFaultTextBytesMax = 40;

// Class name without the package; the whole name for classes of others.
std::string_view short_name(std::string_view name) {
    return name.starts_with(kPackage) ? name.substr(kPackage.size()) : name;
}

std::string bytes_text(size_t count) {
    return std::to_string(count) + (count == 1 ? " byte" : " bytes");
}

std::string quoted(std::string_view text) {
    return "\"" + std::string(text.substr(0, kFaultTextBytesMax)) + "\"";
}

[[noreturn]] void fail_as_key_bytes(Bytes field, const char* form) {
    throw RecordFault("a key of " + bytes_text(field.size()) + " is no " + form);
}

void require_key_bytes(Bytes field, size_t size, const char* form) {
    if (field.size() != size) fail_as_key_bytes(field, form);
}

Bytes content_of_bytes(Bytes field, const char* what) {
    if (field.size() < kLengthBytes || load_u32be(field.data()) != field.size() - kLengthBytes)
        throw RecordFault(std::string("the length inside its ") + what +
                          "'s BytesWritable does not agree with the record's");
    return field.subspan(kLengthBytes);
}

std::string_view content_of_text(Bytes field, const char* what) {
    int64_t size = 0;
    const uint8_t* end = field.data() + field.size();
    const uint8_t* at = read_hadoop_vint(field.data(), end, size);
    if (at == nullptr || size != end - at)
        throw RecordFault(std::string("the length inside its ") + what +
                          "'s Text does not agree with the record's");
    return {reinterpret_cast<const char*>(at), static_cast<size_t>(size)};
}

uint64_t number_of(std::string_view text) {
    const char* end = text.data() + text.size();
    std::from_chars_result result{};
    uint64_t key = 0;
    if (text.starts_with('-')) {
        int64_t negative = 0;
        result = std::from_chars(text.data(), end, negative);
        key = static_cast<uint64_t>(negative);
    } else {
        result = std::from_chars(text.data(), end, key);
    }
    if (result.ec != std::errc() || result.ptr != end)
        throw RecordFault("the key " + quoted(text) + " is no decimal number of 64 bits");
    return key;
}

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

float float_of(const char* begin, const char* end) {
    const char* at = begin + (*begin == '+' && end - begin > 1 && begin[1] != '-');
    float value = 0;
    std::from_chars_result result = std::from_chars(at, end, value);
    if (result.ec == std::errc::result_out_of_range) {
        // Too small as well as too large for float32: the wider type tells which.
        double wide = 0;
        result = std::from_chars(at, end, wide);
        value = static_cast<float>(wide);
    }
    if (result.ec != std::errc() || result.ptr != end)
        throw RecordFault("the value's " + quoted({begin, static_cast<size_t>(end - begin)}) +
                          " is no float32");
    return value;
}

// Calls `take(begin, end)` for every word of `text`.
template <class Take>
void each_word(std::string_view text, Take take) {
    const char* at = text.data();
    const char* const end = at + text.size();
    for (;;) {
        at = std::find_if_not(at, end, is_blank);
        if (at == end) return;
        const char* const word = at;
        at = std::find_if(at, end, is_blank);
        take(word, at);
    }
}

constexpr char kNoValue[] = "no value, which deletes it: only the input of a delta may do that";

void require_width(size_t width, EmptyValues empty_values) {
    if (width == 0 && empty_values == EmptyValues::kRefused) throw RecordFault(kNoValue);
    if (width > kSequenceValueBytesMax)
        throw RecordFault("a value of " + bytes_text(width) + "; supported are 1 to " +
                          std::to_string(kSequenceValueBytesMax));
}

size_t floats_width(Bytes field) {
    if (field.size() < kLengthBytes ||
        uint64_t{load_u32be(field.data())} * 4 != field.size() - kLengthBytes)
        throw RecordFault("the count inside its ArrayWritable is not that of its float32 elements");
    return field.size() - kLengthBytes;
}

}  // namespace

std::string class_fault(const std::string& key_class, const std::string& value_class) {
    const std::string_view key = short_name(key_class);
    const std::string_view value = short_name(value_class);
    if (key != "BytesWritable" && key != "LongWritable" && key != "IntWritable" &&
        key != "VLongWritable" && key != "Text")
        return "key class \"" + key_class +
               "\" is not supported; supported are org.apache.hadoop.io.BytesWritable, "
               "LongWritable, IntWritable, VLongWritable and Text";
    if (value != "BytesWritable" && value != "Text" && value != "ArrayWritable")
        return "value class \"" + value_class +
               "\" is not supported; supported are org.apache.hadoop.io.BytesWritable, Text and "
               "ArrayWritable";
    return "";
}

PairDecoder::PairDecoder(const std::string& key_class, const std::string& value_class,
                         const SequenceRecord& first, EmptyValues empty_values)
    : empty_values_(empty_values) {
    const std::string_view key = short_name(key_class);
    const std::string_view value = short_name(value_class);
    if (key == "LongWritable")
        key_form_ = KeyForm::kLong;
    else if (key == "IntWritable")
        key_form_ = KeyForm::kInt;
    else if (key == "VLongWritable")
        key_form_ = KeyForm::kVLong;
    else if (key == "Text")
        key_form_ = KeyForm::kText;
    else
        key_form_ = first.key.size() == kRawKeyBytes ? KeyForm::kRaw : KeyForm::kBytes;
    if (value == "Text")
        value_form_ = ValueForm::kText;
    else if (value == "ArrayWritable")
        value_form_ = ValueForm::kFloats;
    else
        value_form_ = key_form_ == KeyForm::kRaw ? ValueForm::kRaw : ValueForm::kBytes;
    key_of(first.key);
    width_ = width_of(first.value);
    require_width(width_, empty_values_);
}

void PairDecoder::decode(const SequenceRecord& record, uint64_t& key, uint8_t* value) const {
    key = key_of(record.key);
    try {
        const size_t width = width_of(record.value);
        if (width == 0) throw RecordFault(kNoValue);
        if (width != width_)
            throw RecordFault("a value of " + bytes_text(width) + "; the file's first has " +
                              std::to_string(width_));
        write_value(record.value, width, value);
    } catch (const RecordFault& fault) {
        throw RecordFault("key " + std::to_string(key) + ": " + fault.what());
    }
}

void PairDecoder::decode_any(const SequenceRecord& record, uint64_t& key,
                             std::vector<uint8_t>& values) const {
    key = key_of(record.key);
    try {
        const size_t width = width_of(record.value);
        require_width(width, empty_values_);
        values.resize(values.size() + width);
        if (width > 0) write_value(record.value, width, values.data() + values.size() - width);
    } catch (const RecordFault& fault) {
        throw RecordFault("key " + std::to_string(key) + ": " + fault.what());
    }
}

uint64_t PairDecoder::key_of(Bytes field) const {
    switch (key_form_) {
        case KeyForm::kRaw:
            require_key_bytes(field, kRawKeyBytes, "raw key of 8 bytes, as the file's first");
            return load_u64le(field.data());
        case KeyForm::kBytes: {
            require_key_bytes(field, kLengthBytes + kRawKeyBytes,
                              "key of 8 bytes (Paddle's raw keys) or 12 (Hadoop's, with a length)");
            return load_u64le(content_of_bytes(field, "key").data());
        }
        case KeyForm::kLong:
            require_key_bytes(field, 8, "LongWritable");
            return load_u64be(field.data());
        case KeyForm::kInt:
            require_key_bytes(field, 4, "IntWritable");
            return static_cast<uint64_t>(int64_t{static_cast<int32_t>(load_u32be(field.data()))});
        case KeyForm::kVLong: {
            int64_t key = 0;
            const uint8_t* end = field.data() + field.size();
            if (read_hadoop_vint(field.data(), end, key) != end || field.empty())
                fail_as_key_bytes(field, "VLongWritable");
            return static_cast<uint64_t>(key);
        }
        case KeyForm::kText:
            return number_of(content_of_text(field, "key"));
    }
    return 0;
}

size_t PairDecoder::width_of(Bytes field) const {
    switch (value_form_) {
        case ValueForm::kRaw:
            return field.size();
        case ValueForm::kBytes:
            return content_of_bytes(field, "value").size();
        case ValueForm::kText: {
            size_t count = 0;
            each_word(content_of_text(field, "value"), [&](const char*, const char*) { ++count; });
            return count * sizeof(float);
        }
        case ValueForm::kFloats:
            return floats_width(field);
    }
    return 0;
}

void PairDecoder::write_value(Bytes field, size_t width, uint8_t* target) const {
    if (value_form_ == ValueForm::kText) {
        each_word(content_of_text(field, "value"), [&](const char* begin, const char* end) {
            const float value = float_of(begin, end);
            std::memcpy(target, &value, sizeof value);
            target += sizeof value;
        });
    } else if (value_form_ == ValueForm::kFloats) {
        for (size_t at = kLengthBytes; at < field.size(); at += 4, target += 4) {
            const uint32_t bits = load_u32be(field.data() + at);
            std::memcpy(target, &bits, sizeof bits);
        }
    } else {
        std::memcpy(target, field.data() + field.size() - width, width);
    }
}

}  // namespace cube
