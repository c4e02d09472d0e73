#include "bindings/bindings.hpp"
#include "bindings/text.hpp"
#include "kernels/error.hpp"

namespace {

const char* class_name(cube::ErrorKind kind) {
    switch (kind) {
        case cube::ErrorKind::kTable:
            return "TableError";
        case cube::ErrorKind::kSequenceFile:
            return "SequenceFileError";
        case cube::ErrorKind::kWire:
            return "WireError";
        case cube::ErrorKind::kLimit:
            return "LimitError";
        case cube::ErrorKind::kVersionNotLoaded:
            return "VersionNotLoadedError";
        case cube::ErrorKind::kOs:
            return "OSError";
    }
    return "CubeError";
}

void raise_os_error(const cube::OsError& error) {
    nb::object path = nb::steal(PyUnicode_DecodeFSDefault(error.path().c_str()));
    errno = error.code();
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path.ptr());
}

void raise_error(const cube::Error& error) {
    const char* module = error.kind() == cube::ErrorKind::kOs ? "builtins" : "cube_core.errors";
    nb::object type = nb::module_::import_(module).attr(class_name(error.kind()));
    const nb::str message = text_of(error.what());
    PyErr_SetObject(type.ptr(), message.ptr());
}

}  // namespace

void bind_errors() {
    nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
        try {
            std::rethrow_exception(thrown);
        } catch (const cube::OsError& error) {
            raise_os_error(error);
        } catch (const cube::Error& error) {
            raise_error(error);
        }
    });
}
