#include "kernels/table.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/byte_values.hpp"
#include "bindings/python_table.hpp"
#include "bindings/text.hpp"
#include "kernels/table_merge.hpp"
#include "kernels/table_writer.hpp"

namespace {

constexpr const char* kKindNames[] = {"bytes", "fp16", "int8", "variable"};

cube::ValueKind kind_named(const std::string& name) {
    for (uint32_t kind = 0; kind <= cube::kValueKindMax; ++kind)
        if (name == kKindNames[kind]) return static_cast<cube::ValueKind>(kind);
    throw std::invalid_argument("value_kind must be bytes, fp16, int8 or variable, not \"" + name +
                                "\"");
}

void set_values(cube::TableInput& input, const InputArray<uint8_t>& values,
                const std::optional<InputArray<int64_t>>& offsets) {
    const bool is_variable = input.value_kind == cube::ValueKind::kVariable;
    if (is_variable != offsets.has_value())
        throw std::invalid_argument("offsets are for value_kind variable, which needs them");
    input.values = values.data();
    if (is_variable) {
        input.offsets = cut_up(*offsets, values, input.keys.size());
        return;
    }
    expect_dimensions(values, 2, "values");
    if (values.shape(0) != input.keys.size())
        throw std::invalid_argument("values has " + std::to_string(values.shape(0)) + " rows for " +
                                    std::to_string(input.keys.size()) + " keys");
    input.value_bytes = values.shape(1);
}

cube::TableReport write_table(const std::string& path, const InputArray<uint64_t>& keys,
                              const InputArray<uint8_t>& values, const std::string& dict_name,
                              const std::string& version, uint32_t shard, uint32_t shard_num,
                              const std::string& value_kind,
                              const std::optional<InputArray<int64_t>>& offsets,
                              const std::string& base_version,
                              const std::optional<InputArray<uint64_t>>& deletions) {
    cube::TableInput input;
    input.value_kind = kind_named(value_kind);
    input.keys = items_of(keys, "keys");
    set_values(input, values, offsets);
    input.dict_name = dict_name;
    input.version = version;
    input.shard = shard;
    input.shard_num = shard_num;
    input.base_version = base_version;
    if (deletions.has_value()) input.deletions = items_of(*deletions, "deletions");
    nb::gil_scoped_release released;
    return cube::write_table(path, input);
}

cube::TableReport merge_tables(const std::string& path, nb::sequence tables,
                               const std::string& version) {
    std::vector<std::shared_ptr<const cube::Table>> shared;
    for (nb::handle table : tables) shared.push_back(nb::cast<const PythonTable&>(table).shared());
    nb::gil_scoped_release released;
    return cube::merge_tables(path, shared, version);
}

PythonTable open_table(const std::string& path, bool in_memory, bool shared) {
    if (shared && !in_memory) throw std::invalid_argument("a mapped file is shared anyway");
    const cube::TablePlace place = !in_memory ? cube::TablePlace::kMapped
                                   : shared   ? cube::TablePlace::kShared
                                              : cube::TablePlace::kPrivate;
    nb::gil_scoped_release released;
    return PythonTable(cube::Table::open(path, place));
}

PythonTable attach_table(const std::string& path, int descriptor) {
    nb::gil_scoped_release released;
    return PythonTable(cube::Table::attach(path, descriptor));
}

// Rows have one width.
void require_one_width(const PythonTable& table) {
    if (table->is_variable())
        throw std::invalid_argument(table->path() +
                                    ": values of variable width are no rows: call get_bytes and "
                                    "pairs_bytes");
}

PythonTable with_delta(const PythonTable& base, const PythonTable& delta) {
    nb::gil_scoped_release released;
    return PythonTable(cube::Table::with_delta(base.shared(), delta.shared()));
}

nb::tuple parts(nb::handle self) {
    const PythonTable& table = nb::cast<const PythonTable&>(self);
    if (table->base() == nullptr) return nb::make_tuple(self);
    return nb::make_tuple(PythonTable(table->base()), PythonTable(table->delta()));
}

nb::tuple get(const PythonTable& table, const InputArray<uint64_t>& keys_array) {
    require_one_width(table);
    const auto keys = items_of(keys_array, "keys");
    const size_t width = table->value_bytes();
    auto values = new_array<uint8_t>({keys.size(), width});
    auto status = new_array<int32_t>({keys.size()});
    {
        nb::gil_scoped_release released;
        table->find_each(keys, [&](size_t i, const uint8_t* value) {
            uint8_t* target = values.data() + i * width;
            status.data()[i] = status_of(*table, value);
            if (status.data()[i] != cube::kStatusFound) {
                std::fill_n(target, width, uint8_t{0});
            } else {
                table->serve_value(value, target);
            }
        });
    }
    return nb::make_tuple(values, status);
}

nb::tuple pairs(const PythonTable& table, uint64_t start_slot, uint64_t pairs_max) {
    require_one_width(table);
    const uint64_t begin = std::min(start_slot, table->slot_count());
    const uint64_t end = begin + std::min(pairs_max, table->slot_count() - begin);
    std::vector<cube::AnsweredRow> rows;
    {
        nb::gil_scoped_release released;
        rows = table->answered_rows(begin, end);
    }
    const size_t width = table->value_bytes();
    auto keys = new_array<uint64_t>({rows.size()});
    auto values = new_array<uint8_t>({rows.size(), width});
    {
        nb::gil_scoped_release released;
        for (size_t i = 0; i < rows.size(); ++i) {
            std::memcpy(keys.data() + i, rows[i].key, sizeof(uint64_t));
            table->serve_value(rows[i].stored(), values.data() + i * width);
        }
    }
    return nb::make_tuple(keys, values, end);
}

nb::tuple deletions(const PythonTable& table, uint64_t start_slot, uint64_t slots_max) {
    const uint64_t begin = std::min(start_slot, table->slot_count());
    const uint64_t end = begin + std::min(slots_max, table->slot_count() - begin);
    std::vector<uint64_t> deleted;
    if (table->header().is_delta())
        for (uint64_t row = begin; row < end; ++row)
            if (table->is_deleted(row)) deleted.push_back(table->row_key(row));
    auto keys = new_array<uint64_t>({deleted.size()});
    std::copy(deleted.begin(), deleted.end(), keys.data());
    return nb::make_tuple(keys, end);
}

}  // namespace

void bind_table(nb::module_& m) {
    nb::class_<cube::TableReport>(m, "TableReport", nb::is_final())
        .def_ro("key_count", &cube::TableReport::key_count)
        .def_ro("deletion_count", &cube::TableReport::deletion_count)
        .def_ro("duplicate_count", &cube::TableReport::duplicate_count)
        .def_ro("file_bytes", &cube::TableReport::file_bytes)
        .def_ro("overhead_bytes_per_key", &cube::TableReport::overhead_bytes_per_key)
        .def_ro("crc32c", &cube::TableReport::crc32c);

    m.def("write_table", &write_table, nb::arg("path"), nb::arg("keys").noconvert(),
          nb::arg("values").noconvert(), nb::kw_only(), nb::arg("dict_name"), nb::arg("version"),
          nb::arg("shard"), nb::arg("shard_num"), nb::arg("value_kind") = "bytes",
          nb::arg("offsets").noconvert() = nb::none(), nb::arg("base_version") = "",
          nb::arg("deletions").noconvert() = nb::none());
    m.def("merge_tables", &merge_tables, nb::arg("path"), nb::arg("tables"), nb::kw_only(),
          nb::arg("version"));

    auto table = nb::class_<PythonTable>(m, "Table", nb::is_final());
    bind_table_bytes(table);
    table
        .def_static("open", &open_table, nb::arg("path"), nb::kw_only(),
                    nb::arg("in_memory") = true, nb::arg("shared") = false)
        .def_static("attach", &attach_table, nb::arg("path"), nb::arg("descriptor"))
        .def("with_delta", &with_delta, nb::arg("delta"))
        .def_prop_ro("parts", &parts)
        .def_prop_ro(
            "kind", [](const PythonTable& t) { return t->header().is_delta() ? "delta" : "whole"; })
        .def_prop_ro("descriptor", [](const PythonTable& t) { return t->descriptor(); })
        .def_prop_ro("path", [](const PythonTable& t) { return t->path(); })
        .def_prop_ro("dict_name",
                     [](const PythonTable& t) { return text_of(t->header().dict_name); })
        .def_prop_ro("version", [](const PythonTable& t) { return text_of(t->header().version); })
        .def_prop_ro("base_version",
                     [](const PythonTable& t) { return text_of(t->header().base_version); })
        .def_prop_ro("deletion_count",
                     [](const PythonTable& t) { return t->header().deletion_count; })
        .def_prop_ro("shard", [](const PythonTable& t) { return t->header().shard; })
        .def_prop_ro("shard_num", [](const PythonTable& t) { return t->header().shard_num; })
        .def_prop_ro("key_count", [](const PythonTable& t) { return t->key_count(); })
        .def_prop_ro("value_bytes", [](const PythonTable& t) { return t->value_bytes(); })
        .def_prop_ro("value_bytes_max", [](const PythonTable& t) { return t->value_bytes_max(); })
        .def_prop_ro("value_kind",
                     [](const PythonTable& t) {
                         return kKindNames[static_cast<uint32_t>(t->header().value_kind)];
                     })
        .def_prop_ro("file_bytes", [](const PythonTable& t) { return t->file_bytes(); })
        .def_prop_ro("memory_bytes", [](const PythonTable& t) { return t->memory_bytes(); })
        .def_prop_ro("slot_count", [](const PythonTable& t) { return t->slot_count(); })
        .def("get", &get, nb::arg("keys").noconvert())
        .def("pairs", &pairs, nb::arg("start_slot"), nb::arg("pairs_max"))
        .def("deletions", &deletions, nb::arg("start_slot"), nb::arg("slots_max"));
}
