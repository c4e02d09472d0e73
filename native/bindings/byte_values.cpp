#include "bindings/byte_values.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "bindings/bindings.hpp"

namespace {

nb::tuple get_bytes(const PythonTable& table, const InputArray<uint64_t>& keys_array) {
    const auto keys = items_of(keys_array, "keys");
    auto offsets = new_array<int64_t>({keys.size() + 1});
    auto status = new_array<int32_t>({keys.size()});
    std::vector<const uint8_t*> stored(keys.size());
    int64_t end = 0;
    {
        nb::gil_scoped_release released;
        table->find_each(keys, [&](size_t i, const uint8_t* value) {
            offsets.data()[i] = end;
            status.data()[i] = status_of(*table, value);
            if (status.data()[i] != cube::kStatusFound) return;
            stored[i] = value;
            end += static_cast<int64_t>(table->served_size(value));
        });
        offsets.data()[keys.size()] = end;
    }
    auto values = new_array<uint8_t>({static_cast<size_t>(end)});
    {
        nb::gil_scoped_release released;
        for (size_t i = 0; i < keys.size(); ++i)
            if (stored[i] != nullptr)
                table->serve_value(stored[i], values.data() + offsets.data()[i]);
    }
    return nb::make_tuple(offsets, values, status);
}

// The pairs of the slots from `begin` up to `end`, which is brought down to where the values reach
// `bytes_max`.
std::vector<cube::AnsweredRow> rows_up_to(const cube::Table& table, uint64_t begin, uint64_t& end,
                                          uint64_t bytes_max) {
    std::vector<cube::AnsweredRow> rows = table.answered_rows(begin, end);
    uint64_t bytes = 0;
    size_t count = 0;
    while (count < rows.size() && bytes < bytes_max)
        bytes += table.served_size(rows[count++].stored());
    if (count < rows.size()) end = rows[count].slot;
    rows.resize(count);
    return rows;
}

nb::tuple pairs_bytes(const PythonTable& table, uint64_t start_slot, uint64_t pairs_max,
                      uint64_t bytes_max) {
    const uint64_t begin = std::min(start_slot, table->slot_count());
    uint64_t end = begin + std::min(pairs_max, table->slot_count() - begin);
    std::vector<cube::AnsweredRow> rows;
    {
        nb::gil_scoped_release released;
        rows = rows_up_to(*table, begin, end, bytes_max);
    }
    auto keys = new_array<uint64_t>({rows.size()});
    auto offsets = new_array<int64_t>({rows.size() + 1});
    offsets.data()[0] = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
        std::memcpy(keys.data() + i, rows[i].key, sizeof(uint64_t));
        offsets.data()[i + 1] =
            offsets.data()[i] + static_cast<int64_t>(table->served_size(rows[i].stored()));
    }
    auto values = new_array<uint8_t>({static_cast<size_t>(offsets.data()[rows.size()])});
    {
        nb::gil_scoped_release released;
        for (size_t i = 0; i < rows.size(); ++i)
            table->serve_value(rows[i].stored(), values.data() + offsets.data()[i]);
    }
    return nb::make_tuple(keys, offsets, values, end);
}

nb::tuple take_bytes(const InputArray<int64_t>& offsets_array, const InputArray<uint8_t>& values,
                     const InputArray<int64_t>& indexes_array) {
    const auto indexes = items_of(indexes_array, "indexes");
    if (offsets_array.ndim() != 1 || offsets_array.shape(0) == 0)
        throw std::invalid_argument("offsets must be a vector of at least one item");
    const size_t count = offsets_array.shape(0) - 1;
    const auto offsets = cut_up(offsets_array, values, count);
    auto taken_offsets = new_array<int64_t>({indexes.size() + 1});
    int64_t end = 0;
    for (size_t i = 0; i < indexes.size(); ++i) {
        const size_t index = static_cast<size_t>(indexes[i]);
        if (index >= count)
            throw std::invalid_argument("indexes[" + std::to_string(i) +
                                        "] = " + std::to_string(indexes[i]) + " is none of " +
                                        std::to_string(count) + " values");
        taken_offsets.data()[i] = end;
        end += offsets[index + 1] - offsets[index];
    }
    taken_offsets.data()[indexes.size()] = end;
    auto taken = new_array<uint8_t>({static_cast<size_t>(end)});
    {
        nb::gil_scoped_release released;
        for (size_t i = 0; i < indexes.size(); ++i) {
            const size_t index = static_cast<size_t>(indexes[i]);
            std::memcpy(taken.data() + taken_offsets.data()[i], values.data() + offsets[index],
                        static_cast<size_t>(offsets[index + 1] - offsets[index]));
        }
    }
    return nb::make_tuple(taken_offsets, taken);
}

}  // namespace

void bind_table_bytes(nb::class_<PythonTable>& table) {
    table.def("get_bytes", &get_bytes, nb::arg("keys").noconvert())
        .def("pairs_bytes", &pairs_bytes, nb::arg("start_slot"), nb::arg("pairs_max"),
             nb::arg("bytes_max"));
}

void bind_byte_values(nb::module_& m) {
    m.def("take_bytes", &take_bytes, nb::arg("offsets").noconvert(), nb::arg("values").noconvert(),
          nb::arg("indexes").noconvert());
}
