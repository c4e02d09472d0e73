#include "kernels/table_merge.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels/error.hpp"
#include "kernels/table_delta.hpp"

namespace cube {

namespace {

using Tables = std::span<const std::shared_ptr<const Table>>;

// The table whose rows say how values are stored: a base, or else the first delta with any.
const Table& model_of(Tables tables) {
    if (!tables.front()->header().is_delta()) return *tables.front();
    const auto with_values = std::find_if(tables.begin(), tables.end(),
                                          [](const auto& each) { return has_values(*each); });
    return with_values == tables.end() ? *tables.front() : **with_values;
}

void check_tables(Tables tables) {
    if (tables.empty()) throw std::invalid_argument("tables must not be empty");
    const Table& model = model_of(tables);
    for (size_t i = 0; i < tables.size(); ++i) {
        if (tables[i]->base() != nullptr)
            throw Error(ErrorKind::kTable, tables[i]->path() +
                                               ": is laid over its base; merge the base and the "
                                               "delta instead");
        if (i == 0) continue;
        require_delta_over(*tables[i], *tables.front());
        require_same_values(*tables[i], model);
    }
}

TableHeader header_of(Tables tables, const std::string& version) {
    const TableHeader& first = tables.front()->header();
    const TableHeader& model = model_of(tables).header();
    TableHeader header;
    header.kind = first.kind;
    header.dict_name = first.dict_name;
    header.version = version;
    header.base_version = first.base_version;
    header.shard = first.shard;
    header.shard_num = first.shard_num;
    header.value_kind = model.value_kind;
    header.value_bytes = model.value_bytes;
    return header;
}

}  // namespace

TableReport merge_tables(const std::string& path, Tables tables, const std::string& version) {
    check_tables(tables);
    const TableHeader header = header_of(tables, version);
    if (const std::string fault = header_fault(header); !fault.empty())
        throw std::invalid_argument(fault);
    size_t count = 0;
    for (const auto& table : tables) count += static_cast<size_t>(table->row_count());
    std::vector<uint64_t> keys;
    keys.reserve(count);
    RowInputs rows;
    rows.width = header.value_bytes;
    for (const auto& table : tables) {
        rows.runs.push_back(table->run());
        rows.runs.back().first = keys.size();
        for (uint64_t row = 0; row < table->row_count(); ++row) keys.push_back(table->row_key(row));
    }
    rows.keys = keys;
    return write_rows(path, header, rows);
}

}  // namespace cube
