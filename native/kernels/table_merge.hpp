#pragma once

#include <memory>
#include <span>
#include <string>

#include "kernels/table.hpp"
#include "kernels/table_writer.hpp"

namespace cube {

// Writes to `path` what tables hold together, oldest first: a whole table when the first is one,
// else a delta. The file is the one that `write_table` makes of the same rows. Throws Error(kTable)
// for tables that do not belong together, std::invalid_argument for none of them or a version that
// no table can have, OsError when writing fails.
TableReport merge_tables(const std::string& path,
                         std::span<const std::shared_ptr<const Table>> tables,
                         const std::string& version);

}  // namespace cube
