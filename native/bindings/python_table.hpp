#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <utility>

#include "kernels/seek_plan.hpp"
#include "kernels/table.hpp"

// Giving back the memory of a large table takes long: not under the GIL.
class PythonTable {
  public:
    explicit PythonTable(std::shared_ptr<const cube::Table> table) : table_(std::move(table)) {}
    PythonTable(PythonTable&&) noexcept = default;
    ~PythonTable() {
        if (table_ == nullptr) return;
        nanobind::gil_scoped_release released;
        table_.reset();
    }
    const cube::Table& operator*() const { return *table_; }
    const cube::Table* operator->() const { return table_.get(); }
    const std::shared_ptr<const cube::Table>& shared() const { return table_; }

  private:
    std::shared_ptr<const cube::Table> table_;
};

// Of a key for which a table has found `stored`.
inline int32_t status_of(const cube::Table& table, const uint8_t* stored) {
    if (stored == nullptr) return cube::kStatusMissing;
    return table.is_deletion(stored) ? cube::kStatusDeleted : cube::kStatusFound;
}
