#include "kernels/seeker.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cube {

namespace {

void refuse_delta(const TablePointer& table) {
    if (table != nullptr && table->header().is_delta())
        throw std::invalid_argument(table->path() +
                                    ": is a delta, which answers together with its base alone");
}

}  // namespace

bool Seeker::Dict::is_named(std::string_view wanted) const {
    if (!name.empty()) return name == wanted;
    return current != nullptr && current->header().dict_name == wanted;
}

void Seeker::set_tables(std::string_view dict_name, TablePointer current,
                        std::vector<TablePointer> others) {
    refuse_delta(current);
    for (const TablePointer& other : others) refuse_delta(other);
    Dict dict{std::string(dict_name), std::move(current), std::move(others)};
    std::shared_ptr<const Dicts> before;  // what it replaces may be given back outside the lock
    std::lock_guard lock(mutex_);
    auto after = std::make_shared<Dicts>(*dicts_);
    const auto at = std::find_if(after->begin(), after->end(),
                                 [&](const Dict& each) { return each.name == dict_name; });
    if (at == after->end()) {
        after->push_back(std::move(dict));
    } else {
        *at = std::move(dict);
    }
    looks_up_early_ = std::any_of(after->begin(), after->end(), [](const Dict& each) {
        const auto is_variable = [](const TablePointer& table) {
            return table != nullptr && table->is_variable();
        };
        return is_variable(each.current) ||
               std::any_of(each.others.begin(), each.others.end(), is_variable);
    });
    before = std::exchange(dicts_, std::move(after));
}

std::shared_ptr<const Seeker::Dicts> Seeker::dicts() const {
    std::lock_guard lock(mutex_);
    return dicts_;
}

const Seeker::Dict& Seeker::dict_of(const Dicts& dicts, const SeekRequest& request) {
    if (!request.has_dict_name) {
        if (dicts.empty()) throw Error(ErrorKind::kVersionNotLoaded, "no version is loaded");
        return dicts.front();
    }
    std::string served;
    for (const Dict& dict : dicts) {
        if (dict.is_named(request.dict_name)) return dict;
        const std::string name = !dict.name.empty()        ? dict.name
                                 : dict.current != nullptr ? dict.current->header().dict_name
                                                           : "";
        if (!name.empty()) served += (served.empty() ? "" : ", ") + name;
    }
    throw Error(ErrorKind::kVersionNotLoaded,
                "dict '" + std::string(request.dict_name.substr(0, 200)) +
                    "' is not served; served: " + (served.empty() ? "none" : served));
}

TablePointer Seeker::pick(const SeekRequest& request) const {
    const std::shared_ptr<const Dicts> all = dicts();
    const Dict& dict = dict_of(*all, request);
    if (!request.has_version) {
        if (dict.current == nullptr)
            throw Error(ErrorKind::kVersionNotLoaded, "no version is loaded");
        return dict.current;
    }
    const auto is_pinned = [&](const TablePointer& table) {
        return table != nullptr && table->header().version == request.version;
    };
    if (is_pinned(dict.current)) return dict.current;
    for (const TablePointer& table : dict.others)
        if (is_pinned(table)) return table;
    std::string loaded = dict.current == nullptr ? "" : dict.current->header().version;
    for (const TablePointer& table : dict.others)
        if (table != nullptr) loaded += (loaded.empty() ? "" : ", ") + table->header().version;
    throw Error(ErrorKind::kVersionNotLoaded,
                "version '" + std::string(request.version.substr(0, 200)) +
                    "' is not loaded; loaded: " + (loaded.empty() ? "none" : loaded));
}

PreparedSeek Seeker::parse_and_pick(Bytes payload, std::vector<uint64_t>& keys) const {
    PreparedSeek seek;
    seek.keys = &keys;
    seek.keys_begin = keys.size();
    seek.request = parse_seek_request(payload, keys_per_request_max_, keys);
    seek.table = pick(seek.request);
    measure(seek);
    if (seek.response_size_max > frame_bytes_max_)
        throw Error(ErrorKind::kLimit,
                    "the values of " + std::to_string(seek.request.key_count) + " keys take " +
                        (seek.table->is_variable() ? "" : "up to ") +
                        std::to_string(seek.response_size_max) + " bytes, over frame_bytes_max " +
                        std::to_string(frame_bytes_max_) + ": ask for them in several requests");
    return seek;
}

void Seeker::measure(PreparedSeek& seek) const {
    const Table& table = *seek.table;
    const std::string_view version =
        seek.request.version_required ? table.header().version : std::string_view();
    if (!table.is_variable()) {
        seek.response_size_max =
            seek_response_size_max(seek.request.key_count, table.value_bytes(), version);
        return;
    }
    seek.found = find_values(
        table, std::span(*seek.keys).subspan(seek.keys_begin, seek.request.key_count), version);
    seek.response_size_max = seek.found.response_bytes;
}

PreparedSeek Seeker::prepare(Bytes payload, std::vector<uint64_t>& keys) {
    requests_.fetch_add(1, std::memory_order_relaxed);
    request_bytes_.fetch_add(payload.size(), std::memory_order_relaxed);
    const size_t keys_before = keys.size();
    try {
        return parse_and_pick(payload, keys);
    } catch (...) {
        keys.resize(keys_before);
        errors_.fetch_add(1, std::memory_order_relaxed);
        throw;
    }
}

void Seeker::note_failure(const Frame& frame, std::string_view text) {
    const std::scoped_lock lock(failure_mutex_);
    failure_ = {failure_.number + 1, frame.log_id, frame.correlation_id, std::string(text)};
}

Seeker::Failure Seeker::last_failure() const {
    const std::scoped_lock lock(failure_mutex_);
    return failure_;
}

size_t Seeker::write_response(const PreparedSeek& seek, uint8_t* target) {
    const std::string_view version =
        seek.request.version_required ? seek.table->header().version : std::string_view();
    const SeekResponse response =
        seek.table->is_variable()
            ? write_found_values(seek.found, version, target)
            : write_seek_response(
                  *seek.table,
                  std::span(*seek.keys).subspan(seek.keys_begin, seek.request.key_count), version,
                  target);
    keys_.fetch_add(seek.request.key_count, std::memory_order_relaxed);
    response_bytes_.fetch_add(response.bytes, std::memory_order_relaxed);
    if (response.missing_count > 0)
        missing_.fetch_add(response.missing_count, std::memory_order_relaxed);
    return response.bytes;
}

namespace {

int32_t error_code_of(const Error& error) {
    switch (error.kind()) {
        case ErrorKind::kWire:
            return kErrorRequest;
        case ErrorKind::kLimit:
            return kErrorLimit;
        default:
            return kErrorInternal;
    }
}

}  // namespace

std::string seek_error_frame(const Error& error, int64_t correlation_id, size_t request_size,
                             std::string_view address) {
    const int32_t code = error_code_of(error);
    std::string text;
    if (!address.empty()) text = "[" + std::string(address) + "][E" + std::to_string(code) + "]";
    if (code == kErrorRequest)
        text += "Fail to parse request message, CompressType=none, request_size=" +
                std::to_string(request_size) + ": ";
    return encode_error_frame(correlation_id, code, text + error.what());
}

bool is_plain_seek(const Frame& frame) {
    return frame.is_request && frame.method == "seek" &&
           (frame.service == "rec.mcube.DictService" || frame.service == "DictService") &&
           frame.fault.empty() && frame.compress_type == 0 && frame.attachment.empty();
}

}  // namespace cube
