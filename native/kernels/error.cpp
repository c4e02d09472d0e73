#include "kernels/error.hpp"

#include <cstring>

namespace cube {

OsError::OsError(int code, const std::string& path)
    : Error(ErrorKind::kOs, path + ": " + std::strerror(code)), code_(code), path_(path) {}

}  // namespace cube
