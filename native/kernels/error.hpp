#pragma once

#include <stdexcept>
#include <string>

namespace cube {

// Kinds are the names of classes in cube_core.errors.
enum class ErrorKind { kTable, kSequenceFile, kWire, kLimit, kVersionNotLoaded, kOs };

// What every kernel throws; the bindings translate it to the Python class of its kind.
class Error : public std::runtime_error {
  public:
    Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
    ErrorKind kind() const { return kind_; }

  private:
    ErrorKind kind_;
};

}  // namespace cube
