#pragma once

#include <stdexcept>
#include <string>

namespace cube {

// Kinds are the names of classes in cube_core.errors; kOs is Python's OSError.
enum class ErrorKind { kTable, kSequenceFile, kWire, kLimit, kVersionNotLoaded, kOs };

// What every kernel throws; the bindings translate it to the Python class of its kind.
// Arguments that do not fit are std::invalid_argument (ValueError).
class Error : public std::runtime_error {
  public:
    Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
    ErrorKind kind() const { return kind_; }

  private:
    ErrorKind kind_;
};

// A failed system call; becomes OSError(code, strerror(code), path), so FileNotFoundError and so
// on.
class OsError : public Error {
  public:
    OsError(int code, const std::string& path);
    int code() const { return code_; }
    const std::string& path() const { return path_; }

  private:
    int code_;
    std::string path_;
};

}  // namespace cube
