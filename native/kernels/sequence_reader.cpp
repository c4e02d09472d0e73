#include <algorithm>

#include "kernels/sequence_file.hpp"

namespace cube {

namespace {
// A caller's count alone must not decide how much is allocated.
constexpr size_t kBatchBytesMax = size_t{64} << 20;
}  // namespace

SequenceFileReader::SequenceFileReader(const std::string& path, const CodecOf& codec_of,
                                       EmptyValues empty_values)
    : records_(path) {
    if (header().compression != SequenceCompression::kNone) {
        const bool by_block = header().compression == SequenceCompression::kBlock;
        if (!codec_of)
            records_.fail(std::string(by_block ? "block" : "record") + "-compressed with " +
                          header().codec + ", and the reader was given no codecs");
        records_.decompress_with(codec_of(header().codec));
    }
    if (!records_.at_record()) return;
    try {
        decoder_.emplace(header().key_class, header().value_class, records_.current(),
                         empty_values);
    } catch (const RecordFault& fault) {
        records_.fail(fault.what());
    }
}

std::optional<SequenceDialect> SequenceFileReader::dialect() const {
    if (!decoder_) return std::nullopt;
    return decoder_->dialect();
}

uint64_t SequenceFileReader::offset() {
    const std::lock_guard lock(mutex_);
    return records_.window().offset();
}

SequenceBatch SequenceFileReader::read(size_t records_max) {
    const std::lock_guard lock(mutex_);
    SequenceBatch batch;
    batch.width = width();
    if (!records_.at_record()) return batch;
    const size_t capacity = static_cast<size_t>(
        std::min<uint64_t>({records_max, records_.records_max(),
                            std::max<uint64_t>(1, kBatchBytesMax / (batch.width + 8))}));
    batch.keys.reset(new uint64_t[capacity]);
    batch.values.reset(new uint8_t[capacity * batch.width]);
    try {
        for (; batch.count < capacity && records_.at_record(); ++batch.count) {
            decoder_->decode(records_.current(), batch.keys[batch.count],
                             batch.values.get() + batch.count * batch.width);
            records_.advance();
        }
    } catch (const RecordFault& fault) {
        records_.fail(fault.what());
    }
    return batch;
}

SequenceBytesBatch SequenceFileReader::read_bytes(size_t records_max, size_t bytes_max) {
    const std::lock_guard lock(mutex_);
    SequenceBytesBatch batch;
    const size_t values_max = std::min(bytes_max, kBatchBytesMax);
    try {
        while (batch.keys.size() < records_max && batch.values.size() < values_max &&
               records_.at_record()) {
            uint64_t key = 0;
            decoder_->decode_any(records_.current(), key, batch.values);
            batch.keys.push_back(key);
            batch.offsets.push_back(static_cast<int64_t>(batch.values.size()));
            records_.advance();
        }
    } catch (const RecordFault& fault) {
        records_.fail(fault.what());
    }
    return batch;
}

}  // namespace cube
