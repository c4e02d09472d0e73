#pragma once

#include <nanobind/nanobind.h>

#include "bindings/buffer_view.hpp"

namespace nb = nanobind;

// One function a concern, each in the file of its name; module.cpp calls them all.
void bind_errors();
void bind_cpu(nb::module_& m);
void bind_files(nb::module_& m);
void bind_snappy(nb::module_& m);
void bind_table(nb::module_& m);
void bind_byte_values(nb::module_& m);
void bind_frame(nb::module_& m);
void bind_seeker(nb::module_& m);
void bind_seek_plan(nb::module_& m);
void bind_ctr_codec(nb::module_& m);
void bind_ctr_frames(nb::module_& m);
void bind_row_cache(nb::module_& m);
void bind_sequence_file(nb::module_& m);
void bind_shard_pairs(nb::module_& m);
