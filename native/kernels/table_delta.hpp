#pragma once

#include "kernels/table.hpp"

namespace cube {

// Whether any row has a value: a delta of deletions alone fits a base of any width.
inline bool has_values(const Table& table) {
    return table.row_count() > table.header().deletion_count;
}

// Both throw Error(kTable), with the paths and the field, unless `delta` is one over `first`, or
// over the base of `first`.
void require_delta_over(const Table& delta, const Table& first);
// The second looks at how values are stored.
void require_same_values(const Table& delta, const Table& first);

}  // namespace cube
